//! `docs/compatibility.md` is generated from the system-call table. `UPDATE_DOCS=1 cargo test -p libos` writes it anew.

use libos::syscalls::{Level, TABLE};
use std::fmt::Write;

fn page() -> String {
    let entries: Vec<_> = TABLE.iter().flatten().collect();
    let count = |level| entries.iter().filter(|entry| entry.level == level).count();
    let mut text = format!(
        "# Compatibility\n\nGenerated from the tables in `kernel_lib/libos/src/syscalls`; do not edit. x86-64 system calls: {} as Linux has them, {} with \
         something missing, {} refused on purpose. Any other number answers ENOSYS and is counted (`litebox events --stats`).\n\n\
         | # | system call | level | what is missing |\n|--:|---|---|---|\n",
        count(Level::Full),
        count(Level::Partial),
        count(Level::Refused)
    );
    for entry in entries {
        let level = match entry.level {
            Level::Full => "full",
            Level::Partial => "partial",
            Level::Refused => "refused",
        };
        writeln!(text, "| {} | `{}` | {level} | {} |", entry.number, entry.name, entry.missing.replace('|', "\\|")).unwrap();
    }
    text
}

#[test]
fn compatibility_page_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/compatibility.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), page(), "run UPDATE_DOCS=1 cargo test -p libos");
}
