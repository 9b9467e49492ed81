//! What the library OS says. It is hostile: a token that nobody waits for, or an end before the beginning, changes nothing.

use abi::config::FromGuest;
use std::time::Instant;

use serde_json::{json, Value};

use super::budget::Spent;
use super::{Caller, Control, Phase};
use crate::error::{HostError, Kind};
use crate::machine::Notice;

/// Exit status of a container whose program could not be executed, as shells and runc have it.
const fn exec_failure(errno: i32) -> u32 {
    if errno == libc::ENOENT {
        127
    } else {
        126
    }
}

impl Control {
    pub fn from_guest(&self, message: FromGuest) {
        match message {
            FromGuest::Ready => self.guest_is_ready(),
            FromGuest::Started { errno, message } => self.started(errno, &message),
            FromGuest::ExecStarted { token, pid, errno, message } => self.exec_started(token, pid, errno, &message),
            FromGuest::ExecExited { token, status } => self.exec_exited(token, status),
            FromGuest::KillDone { token, errno } | FromGuest::Updated { token, errno } => self.settle(token, errno, json!({})),
            FromGuest::Processes { token, list } => {
                let list = serde_json::to_value(list).unwrap_or(Value::Null);
                self.settle(token, 0, json!({ "processes": list }));
            }
            FromGuest::OomKill { pid } => {
                self.publish(&json!({ "event": "oom", "pid": pid }));
            }
            FromGuest::Trace { line } => self.trace(&line),
            FromGuest::Exited { status } => self.finish(status),
            FromGuest::Log { line } => self.log(&line),
        }
    }

    fn guest_is_ready(&self) {
        if self.ready.tell().is_err() {
            let _ = self.notices.send(Notice::Abandoned);
        }
    }

    /// A line for the container's log, which is the host's disk: a guest that has much to say is cut short.
    fn log(&self, line: &str) {
        let allowed = self.state().log_budget.spend(Instant::now());
        match allowed {
            Spent::Yes => crate::log::info(line),
            Spent::Last => crate::log::warning("the guest logs too much; some lines are left out"),
            Spent::No => {}
        }
    }

    /// Trace lines wait for their readers, within reason: the guest, which waits for this answer, goes as fast as they read.
    fn trace(&self, line: &str) {
        let (subscribers, by_client) = {
            let state = self.state();
            (state.subscribers.clone(), state.traced_by_client)
        };
        if subscribers.is_empty() && !by_client {
            return self.log(line);
        }
        let event = json!({ "event": "trace", "line": line });
        for subscriber in &subscribers {
            subscriber.send_patiently(&event);
        }
    }

    fn started(&self, errno: i32, message: &str) {
        let starts = {
            let mut state = self.state();
            if !matches!(state.phase, Phase::Created | Phase::Starting) {
                return;
            }
            if errno != 0 {
                // Once; what comes after the end changes nothing.
                state.phase = Phase::Failed;
            }
            if errno == 0 {
                state.phase = Phase::Running;
            }
            std::mem::take(&mut state.starts)
        };
        let mut heard = !starts.is_empty();
        for caller in starts {
            reply(&caller, errno, message, json!({}));
        }
        if errno != 0 {
            // Before it was ready: whoever waits for that is told.
            heard |= self.ready.fail(HostError::new(Kind::Guest, message)).is_ok();
            if !heard {
                crate::log::error(message);
            }
            let _ = self.notices.send(Notice::Exit(exec_failure(errno)));
        }
    }

    fn exec_started(&self, token: u32, pid: u32, errno: i32, message: &str) {
        let caller = {
            let mut state = self.state();
            if errno != 0 {
                state.execs.retain(|exec| exec.token != token);
            }
            state.pending.remove(&token)
        };
        if let Some(caller) = caller {
            reply(&caller, errno, message, json!({ "pid": pid }));
        }
    }

    fn exec_exited(&self, token: u32, status: u32) {
        let exec = {
            let mut state = self.state();
            let index = state.execs.iter().position(|exec| exec.token == token);
            index.map(|index| state.execs.remove(index))
        };
        if let Some(exec) = exec {
            exec.caller.connection.send(&json!({ "event": "exit", "exec": exec.caller.id, "status": status }));
        }
    }

    /// The answer of the request that has this token.
    fn settle(&self, token: u32, errno: i32, fields: Value) {
        let caller = self.state().pending.remove(&token);
        if let Some(caller) = caller {
            reply(&caller, errno, "", fields);
        }
    }

    /// Sends an event to all who asked for events.
    fn publish(&self, event: &Value) {
        let subscribers = self.state().subscribers.clone();
        for subscriber in &subscribers {
            subscriber.send(event);
        }
    }
}

fn reply(caller: &Caller, errno: i32, message: &str, fields: Value) {
    if errno == 0 {
        caller.answer(fields);
    } else if message.is_empty() {
        caller.refuse(&std::io::Error::from_raw_os_error(errno).to_string(), errno);
    } else {
        caller.refuse(message, errno);
    }
}
