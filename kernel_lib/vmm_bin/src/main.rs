//! `litebox-vmm`: see `docs/control-protocol.md`.

use std::process::exit;

use vmm::proxy;

const USAGE: &str = "usage: litebox-vmm run --plan FD | --socket FD --kernel FILE
       litebox-vmm proxy --socket FD [--exec ID --pid PID] [--terminal FD]
       litebox-vmm --version";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["run", "--plan", number] => {
            if let Ok(number) = number.parse() {
                exit(vmm::run(number));
            }
        }
        ["run", "--socket", number, "--kernel", kernel] => {
            if let Ok(number) = number.parse() {
                exit(vmm::run_ahead(number, kernel));
            }
        }
        ["proxy", rest @ ..] => {
            if let Some(arguments) = proxy::Arguments::parse(rest) {
                exit(proxy::run(&arguments));
            }
        }
        ["--version"] => {
            println!("litebox-vmm {}", env!("CARGO_PKG_VERSION"));
            return;
        }
        _ => {}
    }
    eprintln!("{USAGE}");
    exit(2);
}
