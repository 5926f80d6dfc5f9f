// SPDX-License-Identifier: GPL-2.0

//! Lending memory that is mapped for the device already.

use super::{
    taken,
    Buffer,
    Rejected,
    Virtqueue, //
};
use crate::{
    bindings,
    virtio::buffer::{
        MappedSegments,
        Premapped, //
    }, //
};
use core::ffi::c_void;
use kernel::prelude::*;

impl<B: Buffer> Virtqueue<'_, B> {
    /// Lends the device what it only reads, as [`add_outbuf`](Self::add_outbuf) does.
    ///
    /// # Errors
    ///
    /// The buffer comes back, see [`Rejected`].
    #[inline]
    pub fn add_outbuf_premapped<M: Premapped<B>>(&mut self, buffer: M) -> Result<(), Rejected<B>> {
        self.add_premapped(buffer, |vq, out, inp, token| {
            if out.is_empty() || !inp.is_empty() {
                return Err(EINVAL);
            }
            // SAFETY: `vq` is valid and locked, `out` is a list, which the core copies; by the contract of `Premapped` its memory
            // stays mapped until `token` is returned.
            taken(unsafe {
                bindings::virtqueue_add_outbuf_premapped(
                    vq,
                    out.as_mut_ptr(),
                    // CAST: The list's length was made from a count of segments.
                    out.len() as u32,
                    token,
                    bindings::GFP_ATOMIC,
                )
            })
        })
    }

    /// Lends the device what it only writes, as [`add_inbuf`](Self::add_inbuf) does.
    ///
    /// # Errors
    ///
    /// The buffer comes back, see [`Rejected`].
    #[inline]
    pub fn add_inbuf_premapped<M: Premapped<B>>(&mut self, buffer: M) -> Result<(), Rejected<B>> {
        self.add_premapped(buffer, |vq, out, inp, token| {
            if inp.is_empty() || !out.is_empty() {
                return Err(EINVAL);
            }
            // SAFETY: As above, of `inp`; there is no context.
            taken(unsafe {
                bindings::virtqueue_add_inbuf_premapped(
                    vq,
                    inp.as_mut_ptr(),
                    // CAST: As above.
                    inp.len() as u32,
                    token,
                    core::ptr::null_mut(),
                    bindings::GFP_ATOMIC,
                )
            })
        })
    }

    #[inline]
    fn add_premapped<M: Premapped<B>>(
        &mut self,
        buffer: M,
        add: impl FnOnce(
            *mut bindings::virtqueue,
            &mut [bindings::scatterlist],
            &mut [bindings::scatterlist],
            *mut c_void,
        ) -> Result,
    ) -> Result<(), Rejected<B>> {
        let vq = self.vq.as_ptr();
        let mut list = MappedSegments::new(&mut self.inner.sg);
        let described = buffer.segments(&mut list);
        let (out, inp) = list.finish();

        let token = buffer.into_raw();
        described
            .and_then(|()| add(vq, out, inp, token.as_ptr()))
            .map_err(|error| Rejected {
                // SAFETY: The core has not taken the token, which by the contract of `Premapped` is one for this.
                buffer: unsafe { B::from_raw(token) },
                error,
            })
    }
}
