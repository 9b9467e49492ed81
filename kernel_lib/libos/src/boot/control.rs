//! Control messages from the runtime (docs/control-protocol.md), one at a time, in the control task.

use super::{container, send};
use crate::errno::{Errno, EINVAL, ESRCH};
use crate::host;
use crate::mm::reclaim;
use crate::process::{self, report, tree, StartRequest};
use crate::signal;
use abi::config::{FromGuest, ProcessSpec, ToGuest};
use abi::request::{report as verb, Op};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::host::Request;
use linux_abi::signal::{SigInfo, SI_USER};

/// Largest message (docs/control-protocol.md).
const MESSAGE_MOST: usize = 128 << 10;

/// Fetches and serves every message that waits.
pub fn handle_all() {
    while let Some(message) = next() {
        handle(message);
    }
}

fn next() -> Option<ToGuest> {
    let buffer: Vec<u8> = alloc::vec![0; MESSAGE_MOST];
    let request = Request::new(Op::Report, 0, [hal::phys::slice_address(&buffer), buffer.len() as u64, 0, 0, 0, 0]).with_flags(verb::NEXT);
    let bytes = host::call(&request, &[]).ok()?.value as usize;
    postcard::from_bytes(buffer.get(..bytes)?).ok()
}

fn handle(message: ToGuest) {
    match message {
        ToGuest::Start => start_init(),
        ToGuest::Exec { token, process } => {
            crate::fs::host::distrust();
            if let Err(errno) = execute(token, *process) {
                send(&FromGuest::ExecStarted {
                    token,
                    pid: 0,
                    errno: errno.0,
                    message: alloc::format!("cannot make a process: {errno:?}"),
                });
            }
        }
        ToGuest::Kill { token, pid, signal, all } => {
            crate::fs::host::distrust();
            let errno = kill(pid, signal, all).err().map_or(0, |errno| errno.0);
            send(&FromGuest::KillDone { token, errno });
        }
        ToGuest::Resize { token, rows, columns } => {
            if let Some(process) = of_token(token) {
                crate::tty::resize(&process, rows, columns);
            }
        }
        ToGuest::ListProcesses { token } => send(&FromGuest::Processes { token, list: report::list() }),
        ToGuest::UpdateLimits { token, limits } => {
            reclaim::set_limits(&limits);
            tree::set_limit(limits.pids);
            crate::fs::cgroup::set_limits(&limits);
            send(&FromGuest::Updated { token, errno: 0 });
        }
        // The stream's host side is the VMM's: it answers end-of-file from now on. What blocks in a read hears of it there.
        ToGuest::CloseStdin { .. } => {}
        ToGuest::Trace { on } => crate::syscalls::trace::set(on),
    }
}

fn start_init() {
    let Some(container) = container() else { return };
    if tree::find_process(1).is_some() {
        return;
    }
    if let Err(errno) = execute(0, container.spec.process.clone()) {
        send(&FromGuest::Started { errno: errno.0, message: alloc::format!("cannot make a process: {errno:?}") });
    }
}

fn execute(token: u32, spec: ProcessSpec) -> Result<u32, Errno> {
    let container = container().ok_or(EINVAL)?;
    let request = StartRequest { spec, seccomp: container.spec.seccomp.clone(), personality: container.spec.personality };
    process::start(token, request, &container.fs)
}

fn of_token(token: u32) -> Option<alloc::sync::Arc<process::Process>> {
    if token == 0 {
        return tree::find_process(1);
    }
    tree::processes().into_iter().find(|process| process.exec_token.load(Ordering::Relaxed) == token)
}

/// Signals from outside: PID 1's protection holds for all but SIGKILL and SIGSTOP (pid_namespaces(7)).
fn kill(pid: u32, signal: u32, all: bool) -> Result<(), Errno> {
    if signal > 64 {
        return Err(EINVAL);
    }
    let targets = if all { tree::processes() } else { tree::find_process(if pid == 0 { 1 } else { pid }).into_iter().collect() };
    let mut found = false;
    for target in targets.iter().filter(|target| !target.is_zombie()) {
        found = true;
        if signal != 0 {
            signal::send_to_process_forced(target, SigInfo::from_process(signal as i32, SI_USER, 0, 0));
            if target.is_exiting() {
                crate::fs::behind::abandon(target.pid);
            }
        }
    }
    if found {
        Ok(())
    } else {
        Err(ESRCH)
    }
}
