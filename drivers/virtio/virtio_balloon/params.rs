// SPDX-License-Identifier: GPL-2.0

//! The parameters of the module.

use guest::param::Number;

guest::module_params! {
    /// What the guest keeps for itself, in MiB; 0 lets the driver choose.
    reserve_mib: Number<u32> = Number::new(0, 0, 0xff_ffff), 0o644,
        "MiB that stay available in the guest however much the host asks for (default 0: a 64th of its memory, 16 to 128)";
    /// What the guest is never made smaller than.
    floor_mib: Number<u32> = Number::new(0, 0, 0xff_ffff), 0o644,
        "MiB that the guest keeps, used or not, however much the host asks for (default 0)";
    /// What is in the balloon at most.
    cap_mib: Number<u32> = Number::new(0xff_ffff, 0, 0xff_ffff), 0o644,
        "MiB in the balloon at most, for a program of the guest that watches its pressure (default 16777215: no cap)";
    /// How much may come back.
    refault_mib: Number<u32> = Number::new(32, 0, 0xff_ffff), 0o644,
        "MiB in a second that the guest reads back after they were reclaimed, at which inflating pauses (default 32, 0: never)";
    /// How many kinds of figures the device gets.
    stat_tags: Number<u32> = Number::new(16, 1, 16), 0o444,
        "kinds of statistics that the host knows, in the order of their numbers (default 16: all)";
    /// How many page frame numbers a list has.
    list_pfns: Number<u32> = Number::new(256, 16, 512), 0o444,
        "page frames named in one buffer at most (default 256, which all hosts take; up to 512, for hosts on huge pages)";
}
