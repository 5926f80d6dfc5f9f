// SPDX-License-Identifier: GPL-2.0

//! Snapshots: whatever tasks and modules are called, the document is valid, and says what it was made of.

use proptest::prelude::*;
use serde_json::Value;
use std::collections::HashMap;

#[path = "../../../../drivers/virt/guest_integrity/snapshot/document.rs"]
mod document;
#[path = "../../../../drivers/virt/guest_integrity/snapshot/sighting.rs"]
mod sighting;
#[path = "../../../../drivers/virt/guest_integrity/sort.rs"]
mod sort;

use document::{Document, Head, Module, Task, View};
use sighting::{merge, Sighting};

const SCHEMA: &str =
    include_str!("../../../../Documentation/admin-guide/guest-integrity-snapshot.schema.json");
const PLACES: [&str; 4] = ["runqueue", "pid", "processes", "threads"];
const QUEUES: [&str; 3] = ["current", "fair", "stop"];
const MODULE_PLACES: [&str; 2] = ["list", "told"];

fn validator() -> jsonschema::Validator {
    let schema = serde_json::from_str(SCHEMA).unwrap();

    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

fn text(head: &Head, views: &[View], tasks: &[Task], modules: &[Module], target: &str) -> String {
    let mut text = String::new();
    let mut document = Document::begin(&mut text, head).unwrap();

    document
        .section("views", views, |d, view| d.view(view))
        .unwrap();
    document
        .section("tasks", tasks, |d, task| d.task(task, &PLACES, &QUEUES))
        .unwrap();
    document
        .section("modules", modules, |d, module| {
            d.module(module, &MODULE_PLACES)
        })
        .unwrap();
    document
        .section("functions", ["fput"], |d, name| {
            d.function(name, "patched", target)
        })
        .unwrap();
    document
        .section("directories", [b"/proc"], |d, path| {
            d.directory(path, "replaced", target)
        })
        .unwrap();
    document.end().unwrap();
    text
}

/// The bytes that a string stands for.
fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();

    text.chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap())
        .collect()
}

fn up_to_nul(name: &[u8]) -> &[u8] {
    name.split(|&byte| byte == 0).next().unwrap()
}

fn names(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect()
}

fn some<'a>(bits: u32, of: &[&'a str]) -> Vec<&'a str> {
    of.iter()
        .enumerate()
        .filter(|(i, _)| (bits >> i) & 1 != 0)
        .map(|(_, name)| *name)
        .collect()
}

fn any_head() -> impl Strategy<Value = Head<'static>> {
    (any::<[u64; 3]>(), any::<[u32; 4]>(), any::<bool>()).prop_map(|(long, short, truncated)| {
        Head {
            kernel: b"7.3.4+deb13-cloud-amd64\0\xff",
            time_ns: long[0],
            scans: long[1],
            cpus: short[0],
            cpus_online: short[1],
            retries: long[2],
            skipped: short[2],
            cut: short[3],
            truncated,
        }
    })
}

fn any_task() -> impl Strategy<Value = Task> {
    (
        any::<[i32; 2]>(),
        any::<[u8; 16]>(),
        any::<u64>(),
        any::<[u32; 4]>(),
        any::<bool>(),
        1..16_u16,
        0..8_u8,
    )
        .prop_map(
            |(numbers, comm, start_ns, short, idle, places, queues)| Task {
                pid: numbers[0],
                tgid: numbers[1],
                comm,
                start_ns,
                cpu: short[0],
                state: short[1],
                flags: short[2],
                exit_state: short[3],
                idle,
                places,
                queues,
            },
        )
}

#[test]
fn a_name_cannot_forge_a_document() {
    let head = Head {
        kernel: b"7.3.4",
        time_ns: 1,
        scans: 2,
        cpus: 3,
        cpus_online: 4,
        retries: 5,
        skipped: 6,
        cut: 7,
        truncated: false,
    };
    let module = Module {
        name: b"x\",\"state\":\"\\\n\x7f\xff\0y",
        state: "live",
        places: 0b10,
    };

    let text = text(&head, &[], &[], &[module], "iterate@hide_proc");
    assert_eq!(
        text,
        "{\"version\":1,\"kernel\":\"7.3.4\",\"time_ns\":1,\"scans\":2,\"cpus\":3,\"cpus_online\":4,\"retries\":5,\
         \"skipped\":6,\"cut\":7,\"truncated\":false,\n\"views\":[],\n\"tasks\":[],\n\"modules\":[\n\
         {\"name\":\"x\\\",\\\"state\\\":\\\"\\\\\\u000a\\u007f\\u00ff\",\"state\":\"live\",\"places\":[\"told\"]}],\n\
         \"functions\":[\n{\"name\":\"fput\",\"entry\":\"patched\",\"target\":\"iterate@hide_proc\"}],\n\
         \"directories\":[\n{\"path\":\"/proc\",\"operations\":\"replaced\",\"target\":\"iterate@hide_proc\"}]}\n"
    );
    assert!(validator().is_valid(&serde_json::from_str(&text).unwrap()));
}

/// The schema is one that a wrong document does not pass.
#[test]
fn the_schema_refuses_what_is_wrong() {
    let head = b"{\"version\":1}";

    assert!(!validator().is_valid(&serde_json::from_slice(head).unwrap()));
}

#[test]
fn any_document_is_valid() {
    let validator = validator();
    let tasks = prop::collection::vec(any_task(), 0..8);
    let modules = prop::collection::vec((any::<[u8; 56]>(), 1..4_u8), 0..4);
    let count = prop::option::of(0..1000_usize);

    proptest!(|(head in any_head(), tasks in tasks, modules in modules, count in count, target in "[!-~]{0,64}")| {
        let view = View { name: "pid", state: "not_covered", tasks: count };
        let modules: Vec<_> = modules
            .iter()
            .map(|(name, places)| Module { name, state: "other", places: *places })
            .collect();

        let text = text(&head, &[view], &tasks, &modules, &target);
        prop_assert!(text.is_ascii());
        let document: Value = serde_json::from_str(&text).unwrap();
        if let Err(error) = validator.validate(&document) {
            prop_assert!(false, "{error} in {text}");
        }

        prop_assert_eq!(document["time_ns"].as_u64(), Some(head.time_ns));
        prop_assert_eq!(document["truncated"].as_bool(), Some(head.truncated));
        prop_assert_eq!(document["views"][0]["tasks"].as_u64(), count.map(|count| count as u64));
        let written = document["tasks"].as_array().unwrap();
        prop_assert_eq!(written.len(), tasks.len());
        for (written, task) in written.iter().zip(&tasks) {
            prop_assert_eq!(bytes(&written["comm"]), up_to_nul(&task.comm));
            prop_assert_eq!(written["tgid"].as_i64(), Some(task.tgid.into()));
            prop_assert_eq!(names(&written["places"]), some(task.places.into(), &PLACES));
            prop_assert_eq!(names(&written["queues"]), some(task.queues.into(), &QUEUES));
        }
        let written = document["modules"].as_array().unwrap();
        for (written, module) in written.iter().zip(&modules) {
            prop_assert_eq!(bytes(&written["name"]), up_to_nul(module.name));
        }
    });
}

proptest! {
    /// Each task is there once, with what all places say of it.
    #[test]
    fn sightings_are_brought_together(
        seen in prop::collection::vec((0..20_usize, any::<u16>(), any::<u8>(), any::<bool>()), 0..100)
    ) {
        let mut expected = HashMap::<usize, (u16, u8, bool)>::new();
        for &(task, places, queues, idle) in &seen {
            let entry = expected.entry(task).or_default();
            *entry = (entry.0 | places, entry.1 | queues, entry.2 | idle);
        }

        let mut sightings: Vec<_> = seen
            .iter()
            .map(|&(task, places, queues, idle)| Sighting { task, places, queues, idle })
            .collect();
        let merged = merge(&mut sightings);
        prop_assert_eq!(merged.len(), expected.len());
        for one in merged {
            prop_assert_eq!(expected[&one.task], (one.places, one.queues, one.idle));
        }
    }

    #[test]
    fn whatever_the_order_it_is_sorted(mut items in prop::collection::vec(any::<i32>(), 0..200)) {
        let mut expected = items.clone();
        expected.sort_unstable();
        sort::sort(&mut items, i32::lt);
        prop_assert_eq!(items, expected);
    }
}
