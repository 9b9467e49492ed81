//! The commands that are done without Python.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::process::{getrlimit, Resource};
use serde::Serialize;
use serde_json::{json, Map, Value};

use crate::container::{Connection, Container};
use crate::options::{Command, Exec, Options};
use crate::process;

const SIGKILL: i32 = 9;
const ENOENT: u64 = 2;
const ENOTDIR: u64 = 20;
const EALREADY: u64 = 114;
/// A process that was never started, as runc has it.
const NOT_STARTED: i32 = 255;
/// For answers that need little work of the guest.
const PATIENCE: Duration = Duration::from_secs(5);
const SPEC_VERSION: &str = "1.3.0";
/// `execve`'s: the fault is the program's (`runtime/vmm.py`).
const OF_EXECVE: [u64; 12] = [ENOENT, 13, 8, ENOTDIR, 40, 21, 36, 26, 1, 7, 80, 22];
/// In the order of their numbers.
const LIMITS: [Resource; 16] = [
    Resource::Cpu,
    Resource::Fsize,
    Resource::Data,
    Resource::Stack,
    Resource::Core,
    Resource::Rss,
    Resource::Nproc,
    Resource::Nofile,
    Resource::Memlock,
    Resource::As,
    Resource::Locks,
    Resource::Sigpending,
    Resource::Msgqueue,
    Resource::Nice,
    Resource::Rtprio,
    Resource::Rttime,
];

/// The exit status; None: left to Python, with nothing done.
pub fn serve(options: &Options<'_>) -> Option<i32> {
    let (Command::Start { id } | Command::Kill { id, .. } | Command::Exec(Exec { id, .. }) | Command::State { id }) = options.command
    else {
        return None;
    };
    options.log.open()?;
    let container = Container::open(&options.root, id)?;
    match &options.command {
        Command::Kill { signal, .. } => kill(options, &container, *signal),
        Command::Exec(wanted) => exec(options, &container, wanted),
        Command::State { .. } => state(&container),
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
    Some(refused(options, "start", &answer, 1))
}

fn exec(options: &Options<'_>, container: &Container, wanted: &Exec<'_>) -> Option<i32> {
    let connection = container.connect()?;
    if connection.status()? != "running" {
        return None;
    }
    let mut process = match wanted.process {
        Some(path) => process::read(Path::new(path), &container.state)?,
        None => container.state.exec.clone(),
    };
    if !wanted.args.is_empty() {
        process.insert("args".to_owned(), json!(wanted.args));
    }
    process.get_mut("env")?.as_array_mut()?.extend(wanted.env.iter().map(|variable| json!(variable)));
    if let Some(cwd) = wanted.cwd {
        process.insert("cwd".to_owned(), json!(cwd));
    }
    complete(process.get_mut("rlimits")?.as_array_mut()?);
    for (key, value) in
        [("terminal", json!(false)), ("rows", json!(0)), ("columns", json!(0)), ("stdio", json!([0, 1, 2])), ("extra_files", json!([]))]
    {
        process.insert(key.to_owned(), value);
    }
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    connection.send(json!({"op": "exec", "process": process}), &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
    let answer = connection.answer().unwrap_or_else(|| json!({"error": "the VMM went away"}));
    let Some(pid) = answer["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()) else {
        return Some(refused(options, "exec", &answer, NOT_STARTED));
    };
    Some(follow(connection, pid, wanted).unwrap_or_else(|error| refused(options, "exec", &json!({"error": error}), NOT_STARTED)))
}

/// In the foreground or by a proxy. It is the process whose id the pid file gets.
fn follow(connection: Connection, pid: u32, wanted: &Exec<'_>) -> Result<i32, String> {
    let say = |id: u32| match wanted.pid_file {
        Some(path) => process::write_pid_file(Path::new(path), id).map_err(|error| format!("--pid-file {path}: {error}")),
        None => Ok(()),
    };
    if wanted.detach {
        say(connection.leave_proxy(pid).map_err(|error| format!("starting litebox-vmm: {error}"))?)?;
        return Ok(0);
    }
    say(std::process::id())?;
    Ok(connection.follow(pid))
}

/// With our own limits, where the container has none of that kind.
fn complete(limits: &mut Vec<Value>) {
    for (number, resource) in LIMITS.into_iter().enumerate() {
        if limits.iter().all(|limit| limit["resource"] != number) {
            let own = getrlimit(resource);
            limits.push(json!({"resource": number, "soft": own.current.unwrap_or(u64::MAX), "hard": own.maximum.unwrap_or(u64::MAX)}));
        }
    }
}

/// As `runtime/cli/inspect.py` prints it.
fn state(container: &Container) -> Option<i32> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document<'a> {
        oci_version: &'a str,
        id: &'a str,
        status: &'a str,
        pid: i32,
        bundle: &'a str,
        #[serde(skip_serializing_if = "Map::is_empty")]
        annotations: &'a Map<String, Value>,
        rootfs: &'a str,
        created: &'a str,
        owner: &'a str,
    }
    let status = container.connect()?.status()?;
    let state = &container.state;
    let document = Document {
        oci_version: SPEC_VERSION,
        id: &state.id,
        status: &status,
        pid: if status == "stopped" { 0 } else { state.pid },
        bundle: &state.bundle,
        annotations: &state.annotations,
        rootfs: &state.rootfs,
        created: &state.created,
        owner: &state.owner,
    };
    println!("{}", serde_json::to_string_pretty(&document).ok()?);
    Some(0)
}

/// The program could not be executed: says so as `runtime/log.py` does. 127 when it was not found, as a shell has it.
fn refused(options: &Options<'_>, operation: &str, answer: &Value, otherwise: i32) -> i32 {
    let reason = answer["error"].as_str().unwrap_or("failed").replace('\n', " ");
    let errno = answer["errno"].as_u64().filter(|errno| OF_EXECVE.contains(errno));
    let message = if errno.is_some() { reason } else { format!("{operation}: {reason}") };
    if options.log.is_json {
        vmm::log::error(&message);
    }
    if options.log.path.is_some() || !options.log.is_json {
        eprintln!("litebox: {message}");
    }
    match errno {
        Some(ENOENT | ENOTDIR) => 127,
        Some(_) => 126,
        None => otherwise,
    }
}

fn kill(options: &Options<'_>, container: &Container, signal: i32) -> Option<i32> {
    if signal == SIGKILL {
        // Whatever the guest does, the VM ends.
        container.kill()?;
        return Some(0);
    }
    let request = json!({"op": "kill", "signal": signal, "pid": 0, "all": false});
    // Not left to Python when there is no answer: the guest may get the signal yet, and it would be a second one.
    match container.connect()?.ask_within(request, PATIENCE) {
        Some(answer) => (answer["ok"] == true).then_some(0),
        None if container.is_alive() => Some(refused(options, "kill", &json!({"error": "the VMM did not answer in time"}), 1)),
        None => Some(0), // it ended by this signal, or just before
    }
}
