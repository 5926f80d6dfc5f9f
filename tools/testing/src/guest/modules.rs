// SPDX-License-Identifier: GPL-2.0

//! The kernel's own modules that a guest needs, with all that they depend on.

use anyhow::{
    ensure,
    Context,
    Result, //
};
use std::{
    collections::{
        BTreeMap,
        BTreeSet, //
    },
    fs,
    path::{
        Path,
        PathBuf, //
    },
    process::Command, //
};

/// `modules.dep` of a kernel.
pub struct ModuleTree {
    root: PathBuf,
    /// Path of each module, with what it needs, by the module's name.
    entries: BTreeMap<String, (String, Vec<String>)>,
}

impl ModuleTree {
    /// Reads the tree of modules below `root`, the directory of `modules.dep`.
    pub fn read(root: &Path) -> Result<Self> {
        let file = root.join("modules.dep");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;

        Ok(Self::parse(root, &text))
    }

    fn parse(root: &Path, text: &str) -> Self {
        let entries = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, needs)| {
                let needs = needs.split_whitespace().map(str::to_owned).collect();
                (module_name(path), (path.to_owned(), needs))
            })
            .collect();

        ModuleTree {
            root: root.to_owned(),
            entries,
        }
    }

    /// The paths of the modules named and of all that they need. A name that the tree lacks is left out: it is built into
    /// this kernel, or the guest will say that it is missing.
    fn closure(&self, names: &[&str]) -> BTreeSet<&str> {
        let mut paths = BTreeSet::new();

        for name in names {
            if let Some((path, needs)) = self.entries.get(&module_name(name)) {
                // Each line of modules.dep lists everything already, not only the next step.
                paths.insert(path.as_str());
                paths.extend(needs.iter().map(String::as_str));
            }
        }
        paths
    }

    /// The files that let `modprobe` load the modules named: their decompressed contents and a `modules.dep` for them.
    pub fn files(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        let mut dep = String::new();

        for path in self.closure(names) {
            let (_, needs) = &self.entries[&module_name(path)];

            dep.push_str(plain(path));
            dep.push(':');
            for need in needs {
                dep.push(' ');
                dep.push_str(plain(need));
            }
            dep.push('\n');
            files.push((plain(path).to_owned(), contents(&self.root.join(path))?));
        }
        files.push(("modules.dep".to_owned(), dep.into_bytes()));

        let builtin = fs::read(self.root.join("modules.builtin")).unwrap_or_default();
        files.push(("modules.builtin".to_owned(), builtin));
        Ok(files)
    }
}

/// `virtio_rng` for `kernel/drivers/char/hw_random/virtio-rng.ko.xz`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);

    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// The path without the suffix of its compression.
fn plain(path: &str) -> &str {
    path.split_once(".ko.")
        .map_or(path, |(stem, _)| &path[..stem.len() + ".ko".len()])
}

fn contents(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| path.display().to_string()),
    };
    let output = Command::new(tool)
        .arg("-dc")
        .arg(path)
        .output()
        .with_context(|| format!("{tool}, to read {}", path.display()))?;

    ensure!(
        output.status.success(),
        "{tool} -dc {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/net/core/failover.ko.xz:
kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz
kernel/drivers/char/hw_random/virtio-rng.ko.xz:
";

    #[test]
    fn a_closure_has_what_each_module_needs_and_nothing_else() {
        let tree = ModuleTree::parse(Path::new("/"), DEP);

        assert_eq!(
            tree.closure(&["virtio_net"])
                .into_iter()
                .collect::<Vec<_>>(),
            [
                "kernel/drivers/net/net_failover.ko.xz",
                "kernel/drivers/net/virtio_net.ko.xz",
                "kernel/net/core/failover.ko.xz",
            ]
        );
        assert_eq!(
            tree.closure(&["virtio_rng", "built_in"])
                .into_iter()
                .collect::<Vec<_>>(),
            ["kernel/drivers/char/hw_random/virtio-rng.ko.xz"]
        );
    }

    #[test]
    fn compression_is_not_part_of_a_name() {
        assert_eq!(plain("a/b.ko.xz"), "a/b.ko");
        assert_eq!(plain("a/b.ko"), "a/b.ko");
        assert_eq!(module_name("a/virtio-rng.ko.xz"), "virtio_rng");
    }
}
