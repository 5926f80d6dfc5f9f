// SPDX-License-Identifier: GPL-2.0

//! A driver's own statistics: `ethtool -S`.

use super::{
    Callbacks,
    Device,
    NetDevice,
    Operations, //
};
use crate::bindings;
use kernel::{
    fmt,
    prelude::*, //
};

/// Room for a name and its terminator.
const LEN: usize = bindings::ETH_GSTRING_LEN as usize;

/// Where a driver lists its statistics.
pub struct Statistics<'a> {
    room: Room<'a>,
    count: usize,
}

/// What is wanted of them.
enum Room<'a> {
    Count,
    Names(&'a mut [[u8; LEN]]),
    Values(&'a mut [u64]),
}

impl<'a> Statistics<'a> {
    fn new(room: Room<'a>) -> Self {
        Self { room, count: 0 }
    }

    /// Returns whether the values are wanted, and not just the names: if not, they need not be found out.
    pub fn want_values(&self) -> bool {
        matches!(self.room, Room::Values(_))
    }

    /// Adds one. A name of more than 31 bytes is cut off.
    pub fn add(&mut self, name: fmt::Arguments<'_>, value: u64) {
        match &mut self.room {
            Room::Count => {}
            Room::Names(names) => {
                if let Some(slot) = names.get_mut(self.count) {
                    slot.fill(0);
                    // The last byte stays the terminator.
                    let (text, _) = slot.split_at_mut(LEN - 1);
                    let mut out = Text { text, len: 0 };
                    // What does not fit is cut off.
                    let _ = fmt::Write::write_fmt(&mut out, name);
                }
            }
            Room::Values(values) => {
                if let Some(slot) = values.get_mut(self.count) {
                    *slot = value;
                }
            }
        }
        self.count += 1;
    }
}

/// A text that is cut off where its room ends.
struct Text<'a> {
    text: &'a mut [u8],
    len: usize,
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for (to, from) in self.text.iter_mut().skip(self.len).zip(s.bytes()) {
            *to = from;
            self.len += 1;
        }
        Ok(())
    }
}

impl<T: Operations> Callbacks<T> {
    /// Returns how many statistics there are.
    pub(super) fn count_statistics(dev: &Device<T>) -> usize {
        let mut list = Statistics::new(Room::Count);

        T::statistics(dev, &mut list);
        list.count
    }

    /// # Safety
    ///
    /// The stack calls it under the device's lock, with a device that was made for `T`.
    pub(super) unsafe extern "C" fn get_sset_count(dev: *mut NetDevice, set: c_int) -> c_int {
        // CAST: The number of a string set.
        if set as u32 != bindings::ethtool_stringset_ETH_SS_STATS {
            return EOPNOTSUPP.to_errno();
        }
        // SAFETY: The stack calls with a valid device of this type.
        // CAST: A device has few queues.
        unsafe { Device::<T>::from_raw(dev.cast()) }.statistics() as c_int
    }

    /// # Safety
    ///
    /// The stack calls it under the device's lock, with a device that was made for `T` and room in `data` for as many strings as
    /// `get_sset_count()` said.
    pub(super) unsafe extern "C" fn get_strings(dev: *mut NetDevice, set: u32, data: *mut u8) {
        if set != bindings::ethtool_stringset_ETH_SS_STATS {
            return;
        }
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev.cast()) };
        // SAFETY: `data` has room for as many strings as `get_sset_count()` has said, which is the same each time.
        let names =
            unsafe { core::slice::from_raw_parts_mut(data.cast::<[u8; LEN]>(), dev.statistics()) };

        T::statistics(dev, &mut Statistics::new(Room::Names(names)));
    }

    /// # Safety
    ///
    /// The stack calls it under the device's lock, with a device that was made for `T`, a valid `stats`, and room in `data` for as
    /// many values as that says, all zero.
    pub(super) unsafe extern "C" fn get_ethtool_stats(
        dev: *mut NetDevice,
        stats: *mut bindings::ethtool_stats,
        data: *mut u64,
    ) {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev.cast()) };
        // SAFETY: The stack calls with a valid structure.
        // CAST: A count of statistics.
        let room = unsafe { (*stats).n_stats } as usize;
        // SAFETY: `data` has room for as many values as the structure says.
        let values = unsafe { core::slice::from_raw_parts_mut(data, room) };

        T::statistics(dev, &mut Statistics::new(Room::Values(values)));
    }
}
