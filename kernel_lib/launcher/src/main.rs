//! `litebox`, as it is executed: the command line is Python (`runtime/cli`), and Python takes 5 ms to start. What is asked for once per
//! container and needs nothing of it is done here ([`direct`]): `start`, `exec`, `state` and `kill`, when there is nothing special about them. Whatever else
//! there is, a doubt included, is Python's, which begins at the beginning: nothing has been done by then. Only the VMM of a container to be
//! created is under way already ([`ahead`]).

mod ahead;
mod container;
mod direct;
mod options;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{exit, Command};

/// Exit status of a command that cannot be executed.
const FAILED: i32 = 126;

fn main() {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    let words: Option<Vec<&str>> = arguments.iter().map(|word| word.to_str()).collect();
    let options = words.and_then(|words| options::parse(&words));
    if let Some(code) = options.as_ref().and_then(direct::serve) {
        exit(code);
    }
    let library = library();
    let mut python = Command::new(library.join("python"));
    python.arg("-IS").arg(library.join("litebox.pyc")).args(&arguments).env_remove("LITEBOX_AHEAD");
    if options.is_some_and(|options| matches!(options.command, options::Command::Create)) {
        let vmms = std::env::var_os("LITEBOX_LIBDIR").map_or_else(|| library.clone(), PathBuf::from);
        python.envs(ahead::start(&vmms).map(|value| ("LITEBOX_AHEAD", value)));
    }
    let error = python.exec();
    eprintln!("litebox: {}: {error}", library.join("python").display());
    exit(FAILED);
}

/// `../lib/litebox` of this program.
fn library() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().and_then(Path::parent).unwrap_or(Path::new("/")).join("lib/litebox")
}
