// SPDX-License-Identifier: GPL-2.0

//! Streams between a virtual machine and its host (`AF_VSOCK`), from the kernel.
//!
//! VirtIO 1.3, section 5.10. The kernel loads the module of the address family and of the device when they are asked for.
//!
//! C headers: [`include/linux/net.h`](srctree/include/linux/net.h),
//! [`include/uapi/linux/vm_sockets.h`](srctree/include/uapi/linux/vm_sockets.h)

use crate::bindings;

use core::{
    mem::size_of_val,
    ptr::NonNull, //
};

use kernel::{
    error::to_result,
    prelude::*, //
};

/// A connected stream.
///
/// # Invariants
///
/// `socket` is a socket of the kernel, owned by this.
pub struct Stream {
    socket: NonNull<bindings::socket>,
}

// SAFETY: A socket is bound to no thread.
unsafe impl Send for Stream {}

impl Stream {
    /// Connects to `port` of the machine with the number `cid`; the host's is 2. Sleeps, for 2 s if nobody answers.
    ///
    /// # Errors
    ///
    /// Those of `socket(2)` and `connect(2)`.
    pub fn connect(cid: u32, port: u32) -> Result<Self> {
        let mut socket = core::ptr::null_mut();

        // SAFETY: The first network namespace is always there, and `socket` is valid for writing.
        // CAST: Small constants.
        to_result(unsafe {
            bindings::sock_create_kern(
                &raw mut bindings::init_net,
                bindings::AF_VSOCK as c_int,
                bindings::sock_type_SOCK_STREAM as c_int,
                0,
                &mut socket,
            )
        })?;
        // INVARIANT: It has just been made.
        let stream = Stream {
            socket: NonNull::new(socket).ok_or(ENOMEM)?,
        };

        let mut address = bindings::sockaddr_vm {
            // CAST: A small constant.
            svm_family: bindings::AF_VSOCK as u16,
            svm_cid: cid,
            svm_port: port,
            ..Default::default()
        };
        // CAST: The size of a small structure.
        let len = size_of_val(&address) as c_int;
        // SAFETY: By the type invariants, the socket is valid; the kernel copies the address.
        to_result(unsafe {
            bindings::kernel_connect(
                stream.socket.as_ptr(),
                (&raw mut address).cast(),
                len,
                0, //
            )
        })?;
        Ok(stream)
    }

    /// Sends as much of `bytes` as there is room for at the other end, without waiting, and returns how much that is.
    ///
    /// # Errors
    ///
    /// [`EAGAIN`] if there is no room; anything else says that the stream is at its end.
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut message = bindings::msghdr {
            msg_flags: bindings::MSG_DONTWAIT | bindings::MSG_NOSIGNAL,
            ..Default::default()
        };
        let mut part = bindings::kvec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };

        // SAFETY: By the type invariants, the socket is valid; the bytes are only read.
        let sent = unsafe {
            bindings::kernel_sendmsg(
                self.socket.as_ptr(),
                &mut message,
                &mut part,
                1,
                bytes.len(),
            )
        };
        to_result(sent)?;
        // CAST: Not negative.
        Ok(sent as usize)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the socket is owned.
        unsafe { bindings::sock_release(self.socket.as_ptr()) };
    }
}
