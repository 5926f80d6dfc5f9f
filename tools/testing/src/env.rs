// SPDX-License-Identifier: GPL-2.0

//! What `make` says about the kernel and the modules, passed as environment variables.

use anyhow::{
    bail,
    Context,
    Result, //
};
use std::{
    ffi::OsString,
    path::{
        Path,
        PathBuf, //
    },
    process::Command, //
};

/// The kernel under test and where everything lies, as seen from inside the build tree.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Release of the kernel, as `uname -r` prints it.
    pub kernel_release: String,
    /// The kernel image that QEMU boots.
    pub kernel_image: PathBuf,
    /// Directory with the `modules.dep` and the modules that came with the kernel.
    pub stock_modules: PathBuf,
    /// Directory with our modules.
    pub modules: PathBuf,
    /// Build directory of the kernel.
    pub kdir: PathBuf,
    /// The root of the checkout.
    pub top: PathBuf,
}

impl Environment {
    /// Reads the variables that the makefile sets.
    pub fn from_env() -> Result<Self> {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");

        Ok(Environment {
            kernel_release: variable("KERNEL_RELEASE")?,
            kernel_image: path("KERNEL_IMAGE")?,
            stock_modules: path("STOCK_MODULES")?,
            modules: PathBuf::from(variable("MODULES")?),
            kdir: path("KDIR")?,
            top: top
                .canonicalize()
                .with_context(|| format!("{}: where this program was built", top.display()))?,
        })
    }

    /// Whether the kernel is the one of `scripts/sanitizer-kernel`, with more checks and slower.
    pub fn is_sanitizer(&self) -> bool {
        self.kernel_release.ends_with("-sanitizer")
    }

    /// A directory for the logs of failed tests.
    pub fn log_dir(&self) -> PathBuf {
        self.top.join("build/test-logs")
    }

    /// Returns the command which builds `target` of the modules in `source` for the kernel under test, in `output` or else beside the
    /// sources.
    pub fn kbuild(&self, source: &Path, output: Option<&Path>, target: &str) -> Command {
        let directory = |variable: &str, path: &Path| {
            let mut word = OsString::from(variable);
            word.push("=");
            word.push(path);
            word
        };
        let mut make = Command::new("make");

        make.arg("-C")
            .arg(&self.kdir)
            .arg(directory("M", source))
            .args(output.map(|output| directory("MO", output)))
            .arg(target);
        // What `make` was told that runs this program is not meant for kbuild.
        for variable in ["MAKEFLAGS", "MAKELEVEL", "KDIR"] {
            make.env_remove(variable);
        }
        make
    }
}

fn variable(name: &str) -> Result<String> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => {
            bail!("{name} is not set: run this through make, which sets what `make -s vars` prints")
        }
    }
}

/// A path that must exist. One that lies in the build tree is given as the host sees it, and this program may run inside,
/// where the tree is the root.
fn path(name: &str) -> Result<PathBuf> {
    let outside = PathBuf::from(variable(name)?);

    if outside.exists() {
        return Ok(outside);
    }
    if let Ok(root) = variable("BUILDROOT") {
        if let Ok(rest) = outside.strip_prefix(&root) {
            let inside = Path::new("/").join(rest);
            if inside.exists() {
                return Ok(inside);
            }
        }
    }
    bail!("{name}: {} does not exist", outside.display())
}
