//! The commands that are done without Python.

use serde_json::{json, Value};

use crate::container::Container;
use crate::options::{Command, Options};

const SIGKILL: i32 = 9;
const ENOENT: u64 = 2;
const ENOTDIR: u64 = 20;
const EALREADY: u64 = 114;

/// The exit status; None: left to Python, with nothing done.
pub fn serve(options: &Options<'_>) -> Option<i32> {
    let (Command::Start { id } | Command::Kill { id, .. }) = options.command else { return None };
    options.log.open()?;
    let container = Container::open(&options.root, id)?;
    match options.command {
        Command::Kill { signal, .. } => kill(&container, signal),
        _ => start(options, &container),
    }
}

fn start(options: &Options<'_>, container: &Container) -> Option<i32> {
    if container.has_hooks(&["startContainer", "poststart"]) {
        return None;
    }
    container.lock()?;
    let connection = container.connect()?;
    let answer = connection.ask(json!({"op": "start"})).unwrap_or_else(|| json!({"error": "the VMM went away"}));
    if answer["ok"] == true {
        return Some(0);
    }
    if answer["errno"] == EALREADY {
        return None;
    }
    Some(refused(options, &answer))
}

/// The program could not be executed: says so as `runtime/log.py` does. 127 when it was not found, as a shell has it.
fn refused(options: &Options<'_>, answer: &Value) -> i32 {
    let message = answer["error"].as_str().unwrap_or("start failed").replace('\n', " ");
    if options.log.is_json {
        vmm::log::error(&message);
    }
    if options.log.path.is_some() || !options.log.is_json {
        eprintln!("litebox: {message}");
    }
    match answer["errno"].as_u64() {
        Some(ENOENT | ENOTDIR) => 127,
        Some(_) => 126,
        None => 1,
    }
}

fn kill(container: &Container, signal: i32) -> Option<i32> {
    if signal == SIGKILL {
        // Whatever the guest does, the VM ends.
        container.kill()?;
        return Some(0);
    }
    let answer = container.connect()?.ask(json!({"op": "kill", "signal": signal, "pid": 0, "all": false}))?;
    (answer["ok"] == true).then_some(0)
}
