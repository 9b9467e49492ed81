//! `containerd-shim-litebox-v1`, as containerd executes it. The shim is Python (`shim/`), which takes longer to start than containerd's
//! other shims take altogether: what containerd waits for is done here. `start` makes the socket and answers, and Python starts on it while
//! containerd connects, the VMM of the first container beside it; `delete` asks Python only when something has to be freed.

mod delete;
mod flags;
mod request;
mod socket;
mod start;
mod wire;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use flags::Call;
use launcher::ahead;

const NAME: &str = "io.containerd.litebox.v1";

/// What containerd is told, and shows to its user.
type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    match flags::parse(std::env::args().skip(1), |name| std::env::var(name).ok()).and_then(|call| run(&call)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprint!("{NAME}: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(call: &Call) -> Result<()> {
    if call.version {
        println!("containerd-shim-litebox-v1:\n  Version:  {}\n", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    if call.info {
        return Err(failed(&python(call, &["info"]).exec()));
    }
    match call.action.as_str() {
        "start" => start::start(call),
        "delete" => delete::delete(call),
        start::SERVE => {
            // Away from whoever gets signals together with containerd's child.
            rustix::process::setsid().map_err(|error| failed(&error.into()))?;
            let mut shim = python(call, &[start::SERVE]);
            if let Some((vmm, rest)) = call.rest.split_last() {
                shim.args(rest);
                if vmm == start::AHEAD {
                    ahead::start(&mut shim);
                }
            }
            Err(failed(&shim.exec()))
        }
        other => Err(format!("no such action: {other:?} (start or delete)")),
    }
}

/// The shim's Python, called as containerd calls a shim.
fn python(call: &Call, action: &[&str]) -> Command {
    let mut command = launcher::python("containerd-shim-litebox-v1.pyc");
    command.args(call.words()).args(action).env("TTRPC_ADDRESS", &call.ttrpc_address);
    command
}

fn failed(error: &std::io::Error) -> String {
    format!("cannot start Python: {error}")
}
