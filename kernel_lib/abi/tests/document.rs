//! `docs/host-interface.md` is generated from the request table. `UPDATE_DOCS=1 cargo test -p abi` writes it anew.

use std::fmt::Write;

fn page() -> String {
    let mut text = String::from(
        "# Host interface\n\nGenerated from `kernel_lib/abi/src/request.rs`; do not edit. Everything that a guest can ask of its host, beyond computing:\n\
         requests in the shared ring (at most 32 kinds), and a handful of ports.\n\n| # | request | arguments | what it does |\n|--:|---|---|---|\n",
    );
    for row in abi::request::TABLE {
        writeln!(text, "| {} | `{}` | {} | {} |", row.op as u8, row.name, row.args.replace('|', "\\|"), row.doc.replace('|', "\\|"))
            .unwrap();
    }
    text.push_str("\n| port | what it does |\n|---|---|\n");
    for (port, what) in [
        (abi::layout::port::DOORBELL, "signals an event descriptor: the submission ring has work; does not leave the guest"),
        (abi::layout::port::EXIT, "ends the VM with an exit status"),
        (abi::layout::port::START_CPU, "starts another vCPU"),
        (abi::layout::port::REQUEST, "serves one request slot at once, where exits are cheap"),
        (abi::layout::port::PANIC, "ends the VM: the library OS found a bug of its own"),
        (abi::layout::port::DEBUG, "one byte for the debug log; ignored unless the launch plan asks for it"),
    ] {
        writeln!(text, "| {port:#x} | {what} |").unwrap();
    }
    text
}

#[test]
fn host_interface_page_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/host-interface.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), page(), "run UPDATE_DOCS=1 cargo test -p abi");
}
