//! `litebox`, as it is executed: the command line is Python (`runtime/cli`), and Python takes 5 ms to start. What is asked for once per
//! container and needs nothing of it is done here ([`direct`]): `start`, `exec`, `state` and `kill`, when there is nothing special about them. Whatever else
//! there is, a doubt included, is Python's, which begins at the beginning: nothing has been done by then. Only the VMM of a container to be
//! created is under way already ([`launcher::ahead`]).

mod container;
mod direct;
mod options;
mod process;

use std::os::unix::process::CommandExt;
use std::process::exit;

use launcher::{ahead, python};

/// Exit status of a command that cannot be executed.
const FAILED: i32 = 126;

fn main() {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    let words: Option<Vec<&str>> = arguments.iter().map(|word| word.to_str()).collect();
    let options = words.and_then(|words| options::parse(&words));
    if let Some(code) = options.as_ref().and_then(direct::serve) {
        exit(code);
    }
    let mut python = python("litebox.pyc");
    python.args(&arguments);
    if options.is_some_and(|options| matches!(options.command, options::Command::Create)) {
        ahead::start(&mut python);
    }
    let error = python.exec();
    eprintln!("litebox: {}: {error}", python.get_program().display());
    exit(FAILED);
}
