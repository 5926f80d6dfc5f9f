// SPDX-License-Identifier: GPL-2.0

//! Finds the kernel's own reports of trouble in a guest's log.

/// What a kernel prints when something is wrong, whatever the test thinks of its results.
const REPORTS: &[&str] = &[
    "BUG:",
    "BUG ",
    "WARNING:",
    "Oops",
    "Kernel panic",
    "Call Trace",
    "KASAN",
    "UBSAN",
    "ODEBUG",
    "DEBUG_LOCKS_WARN_ON",
    "lockdep",
    "possible circular locking",
    "possible recursive locking",
    "inconsistent lock state",
    "suspicious RCU",
    "RCU used illegally",
    "refcount_t:",
    "list_add corruption",
    "list_del corruption",
    "scheduling while atomic",
    "sleeping function called",
    "general protection",
    "unable to handle",
    "soft lockup",
    "hard LOCKUP",
    "hung task",
    "blocked for more than",
    "rcu_preempt detected stalls",
    "rcu_preempt self-detected stall",
    "detected expedited stalls",
    "new suspected memory leaks",
    "page allocation failure",
    "Out of memory: Killed",
    "NETDEV WATCHDOG",
    "Bad page state",
    "rust_kernel: panicked",
    "panicked at",
];

/// What every boot of a healthy kernel prints and that contains one of the above. Each entry is a whole phrase, so that it
/// excuses one message and no other.
const HARMLESS: &[&str] = &[
    // The command line is printed as it is, and the checkers announce themselves.
    "Command line:",
    "Kernel command line:",
    "Lock dependency validator",
    "lockdep internal structures",
    "KASAN: KernelAddressSanitizer initialized",
    "kasan: KernelAddressSanitizer initialized",
    "RCU lockdep checking is enabled",
    "ODEBUG: selftest passed",
    // About the CPU that QEMU emulates.
    "Spectre V2 : WARNING: Unprivileged eBPF is enabled",
];

/// The first report in a console log, or nothing when the log is clean.
pub fn first_report(log: &str) -> Option<&str> {
    first_report_but(log, &[], None)
}

/// The most lines that a stack has.
const STACK: u32 = 200;

/// The same, but for the stacks that the kernel prints below the lines with one of these `headlines`, and for lines with
/// `message`.
pub fn first_report_but<'a>(
    log: &'a str,
    headlines: &[&str],
    message: Option<&str>,
) -> Option<&'a str> {
    let mut stack = 0;

    log.lines()
        .filter(|line| message.is_none_or(|message| !line.contains(message)))
        .find(|line| {
            if headlines.iter().any(|headline| line.contains(headline)) {
                stack = STACK;
            } else if line.contains("</TASK>") {
                stack = 0;
            }
            stack = stack.saturating_sub(1);
            stack == 0 && is_report(line)
        })
        .map(str::trim_end)
}

fn is_report(line: &str) -> bool {
    REPORTS.iter().any(|report| line.contains(report))
        && !HARMLESS.iter().any(|harmless| line.contains(harmless))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = "\
[    0.000000] Linux version 7.3.4+deb13-cloud-amd64
[    0.000000] Command line: console=ttyS0 panic=-1
[    0.118340] rcu: \tRCU lockdep checking is enabled.
[    0.118340] ... MAX_LOCKDEP_SUBCLASSES:  8
[    2.313370] Run /init as init process
[    3.100000] virtio_net_rust virtio0 eth0: debug mode off
";

    #[test]
    fn a_clean_log_is_clean() {
        assert_eq!(first_report(CLEAN), None);
    }

    #[test]
    fn every_kind_of_report_is_found_after_clean_lines() {
        let real = [
            "[    4.2] WARNING: CPU: 1 PID: 77 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110",
            "[    4.2] WARNING: possible circular locking dependency detected",
            "[    4.2] WARNING: suspicious RCU usage",
            "[    4.2] BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "[    4.2] BUG: KASAN: slab-out-of-bounds in page_to_skb+0x1f/0x200",
            "[    4.2] BUG kmalloc-64 (Not tainted): Right Redzone overwritten",
            "[    4.2] Oops: Oops: 0002 [#1] SMP NOPTI",
            "[    4.2] Oops: general protection fault, probably for non-canonical address",
            "[    4.2] UBSAN: array-index-out-of-bounds in net/core/skbuff.c:900:4",
            "[    4.2] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
            "[    4.2] refcount_t: underflow; use-after-free.",
            "[    4.2] BUG: scheduling while atomic: swapper/0/0/0x00000002",
            "[    4.2] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [insmod:70]",
            "[    4.2] INFO: task insmod:70 blocked for more than 120 seconds.",
            "[    4.2] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "[    4.2]  Call Trace:",
            "[    4.2] list_add corruption. next->prev should be prev (ffff), but was 0000.",
            "[    4.2] rust_kernel: panicked at rust/guest/virtio.rs:10:5:",
            "[    4.2] Kernel panic - not syncing: Attempted to kill init!",
        ];

        for line in real {
            let log = format!("{CLEAN}{line}\n[    5.0] later\n");
            assert_eq!(first_report(&log), Some(line));
        }
    }

    #[test]
    fn a_headline_covers_the_next_stack_only() {
        let stack = "[ 1.0] => failed!\n[ 1.0] Call Trace:\n[ 1.0]  ? lockdep_init_map_type\n[ 1.0]  </TASK>\n";
        assert_eq!(first_report_but(stack, &["=> failed!"], None), None);
        assert_eq!(first_report(stack), Some("[ 1.0] Call Trace:"));

        let log = format!("{stack}[ 2.0] Call Trace:\n");
        assert_eq!(
            first_report_but(&log, &["=> failed!"], None),
            Some("[ 2.0] Call Trace:")
        );
    }

    #[test]
    fn a_message_covers_itself_only() {
        let log = "[ 1.0] eth0: NETDEV WATCHDOG: late\n[ 2.0] WARNING: other\n";

        assert_eq!(
            first_report_but(log, &[], Some("NETDEV WATCHDOG")),
            Some("[ 2.0] WARNING: other")
        );
    }

    #[test]
    fn an_excuse_does_not_cover_its_neighbours() {
        let line = "[    1.0] Spectre V2 : WARNING: something else";
        assert_eq!(first_report(line), Some(line));
    }
}
