//! `litebox-vmm`: see `docs/control-protocol.md`.

use std::process::exit;

const USAGE: &str = "usage: litebox-vmm run --plan FD\n       litebox-vmm proxy --socket FD";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (run, number) = match words.as_slice() {
        ["run", "--plan", number] => (vmm::run as fn(i32) -> i32, number),
        ["proxy", "--socket", number] => (vmm::proxy::run as fn(i32) -> i32, number),
        ["--version"] => {
            println!("litebox-vmm {}", env!("CARGO_PKG_VERSION"));
            return;
        }
        _ => usage(),
    };
    match number.parse() {
        Ok(number) => exit(run(number)),
        Err(_) => usage(),
    }
}

fn usage() -> ! {
    eprintln!("{USAGE}");
    exit(2)
}
