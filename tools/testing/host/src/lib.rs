// SPDX-License-Identifier: GPL-2.0

//! Tests of the pure logic of the modules, on the host.
//!
//! A file of a module that imports only `core` is also ordinary Rust. Each file under `tests/` takes one or more of them in
//! with `#[path]`, from where they lie in the tree, and tests them with examples and properties; nothing is copied and
//! nothing is faked. See `Documentation/testing.md` for how to add one.
