// SPDX-License-Identifier: GPL-2.0

//! The text that the kernel writes for an address: no name of a module's symbol is taken for another module.

use proptest::prelude::*;

#[path = "../../../../rust/guest/symbol/text.rs"]
pub mod text;

use text::Text;

#[test]
fn the_text_of_an_address_is_taken_apart() {
    assert_eq!(
        Text::parse(b"find_pid_ns+0x0/0x40"),
        Text::Known {
            name: b"find_pid_ns",
            offset: 0,
            module: None
        }
    );
    assert_eq!(
        Text::parse(b"iterate+0x1c/0x60 [hide_proc]"),
        Text::Known {
            name: b"iterate",
            offset: 0x1c,
            module: Some(b"hide_proc")
        }
    );
    // The kernel writes a 0 without a prefix where it has none.
    assert_eq!(
        Text::parse(b"modules+0/0x10"),
        Text::Known {
            name: b"modules",
            offset: 0,
            module: None
        }
    );
    for none in [
        "",
        "0xffffffffc0001000",
        "+",
        "x",
        "]",
        " [m]",
        "x+0x1 [m]",
        "x+/0x1",
    ] {
        assert_eq!(Text::parse(none.as_bytes()), Text::Unknown, "{none}");
    }
}

proptest! {
    #[test]
    fn whatever_the_kernel_writes_is_read(
        name in prop::collection::vec(1_u8.., 0..40),
        module in prop::option::of("[a-z_]{1,55}"),
        offset in any::<u32>(),
        size in any::<u32>(),
    ) {
        let mut written = name.clone();
        written.extend(format!("+{offset:#x}/{size:#x}").bytes());
        if let Some(module) = &module {
            written.extend(format!(" [{module}]").bytes());
        }
        prop_assert_eq!(
            Text::parse(&written),
            Text::Known {
                name: &name,
                offset: offset as usize,
                module: module.as_deref().map(str::as_bytes),
            }
        );
    }

    #[test]
    fn any_text_is_read_without_harm(text in prop::collection::vec(any::<u8>(), 0..80)) {
        Text::parse(&text);
    }
}
