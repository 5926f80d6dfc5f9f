// SPDX-License-Identifier: GPL-2.0

//! The parameters of the module.

use guest::param::Number;

guest::module_params! {
    /// What the guest keeps for itself, in MiB; 0 lets the driver choose.
    reserve_mib: Number<u32> = Number::new(0, 0, 0xff_ffff), 0o644,
        "MiB that stay available in the guest however much the host asks for (default 0: a 64th of its memory, 16 to 128)";
}
