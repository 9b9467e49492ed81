//! What /proc and the runtime show of processes.

use super::{tree, Process, Task};
use abi::config::ProcessInfo;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// Bytes of a command line that a process list shows.
const COMMAND_MOST: usize = 4096;

impl Task {
    /// R, S, D, T, t, Z or X, as /proc/PID/stat has it.
    pub fn state_letter(&self) -> u8 {
        if self.gone.load(Ordering::Relaxed) {
            b'X'
        } else if self.tracee.is_stopped() {
            b't'
        } else if self.process.signals.is_stopped() {
            b'T'
        } else if self.sched.is_sleeping() {
            b'S'
        } else {
            b'R'
        }
    }
}

impl Process {
    pub fn state_letter(&self) -> u8 {
        if self.is_zombie() {
            return b'Z';
        }
        self.leader().map_or(b'Z', |leader| leader.state_letter())
    }

    /// Controlling terminal's device number; 0: none.
    pub fn terminal_device(&self) -> u32 {
        self.session().terminal().map_or(0, |terminal| terminal.device())
    }

    /// argv as it is in the program's memory now (/proc/PID/cmdline), NULs included. May sleep.
    pub fn command_line(&self) -> Vec<u8> {
        let Some(memory) = self.leader().and_then(|leader| leader.memory()) else { return Vec::new() };
        let layout = memory.layout();
        let bytes = layout.arg_end.saturating_sub(layout.arg_start).min(1 << 20) as usize;
        let mut text = alloc::vec![0; bytes];
        let got = memory.read(layout.arg_start, &mut text, true);
        text.truncate(got);
        text
    }
}

/// Every living process, for the runtime. May sleep.
pub fn list() -> Vec<ProcessInfo> {
    tree::processes().iter().filter(|process| !process.is_reaped()).map(describe).collect()
}

fn describe(process: &Arc<Process>) -> ProcessInfo {
    let leader = process.leader();
    let mut command = process.command_line();
    command.truncate(COMMAND_MOST);
    while command.last() == Some(&0) {
        command.pop();
    }
    for byte in &mut command {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    if command.is_empty() {
        command =
            leader.as_ref().map(|leader| alloc::format!("[{}]", String::from_utf8_lossy(&leader.comm())).into_bytes()).unwrap_or_default();
    }
    let memory = leader.as_ref().and_then(|leader| leader.memory());
    // Taken here: a guard in the expression below would still be held when `cpu_ns` takes the lock again.
    let threads = process.threads.lock().len() as u32;
    ProcessInfo {
        pid: process.pid,
        ppid: process.parent_pid(),
        uid: leader.as_ref().map_or(0, |leader| leader.credentials().uid),
        state: process.state_letter(),
        threads,
        rss_bytes: memory.map_or(0, |memory| {
            let (ram, window) = memory.resident();
            ram + window
        }),
        cpu_ns: process.cpu_ns(),
        start_ns: process.times.start,
        tty: match process.terminal_device() {
            0 => String::from("?"),
            device => alloc::format!("pts/{}", device & 0xff),
        },
        command: String::from_utf8_lossy(&command).into_owned(),
    }
}
