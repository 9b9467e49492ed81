//! What clients ask. Everything that the library OS has to do is passed on under a token; the rest is answered at once.

use std::sync::Arc;

use abi::config::ToGuest;
use serde_json::{json, Value};

use super::connection::{Connection, Incoming};
use super::message::{self, Garbage, Request};
use super::{Caller, Control, Exec, Phase};
use crate::handles::{Handle, Kind};
use crate::services::Errno;

impl Control {
    /// Serves one message of a client.
    pub(super) fn serve(&self, connection: &Arc<Connection>, incoming: Incoming) -> Result<(), Garbage> {
        let handles = self.adopt(incoming.descriptors);
        let parsed = message::parse(&incoming.text, &handles);
        let unused = match parsed {
            Err(garbage) => {
                self.disown(&handles);
                return Err(garbage);
            }
            Ok(message) => {
                let caller = Caller { connection: connection.clone(), id: message.id };
                match message.request {
                    // An exec owns its descriptors from here on: the library OS closes them.
                    Ok(Request::Exec(process)) => {
                        let used: Vec<u32> = process.stdio.iter().chain(&process.extra_files).copied().collect();
                        let passed = self.ask_guest(caller, true, |token| ToGuest::Exec { token, process });
                        handles.into_iter().filter(|handle| !passed || !used.contains(handle)).collect()
                    }
                    Ok(request) => {
                        self.request(caller, request);
                        handles
                    }
                    Err(reason) => {
                        caller.refuse(&reason, libc::EINVAL);
                        handles
                    }
                }
            }
        };
        self.disown(&unused);
        Ok(())
    }

    fn adopt(&self, descriptors: Vec<std::os::fd::OwnedFd>) -> Vec<u32> {
        let Some(host) = self.parts.get().and_then(|parts| parts.host.upgrade()) else { return Vec::new() };
        descriptors.into_iter().map(|fd| host.handles.insert(Handle::new(fd, Kind::Stream))).collect()
    }

    fn disown(&self, handles: &[u32]) {
        let Some(host) = self.parts.get().and_then(|parts| parts.host.upgrade()) else { return };
        for handle in handles {
            let _ = host.handles.remove(*handle);
        }
    }

    fn request(&self, caller: Caller, request: Request) {
        match request {
            Request::Start => self.request_start(caller),
            Request::Exec(_) => {}
            Request::Kill(kill) => {
                self.order_guest(caller, |token| ToGuest::Kill { token, pid: kill.pid, signal: kill.signal, all: kill.all });
            }
            Request::Ps if self.is_paused() => caller.refuse("the container is paused", libc::EAGAIN),
            Request::Ps => {
                self.ask_guest(caller, false, |token| ToGuest::ListProcesses { token });
            }
            Request::Update(limits) => {
                if let Some(host) = self.parts.get().and_then(|parts| parts.host.upgrade()).filter(|_| limits.ram != 0) {
                    host.ram.set_limit(limits.ram);
                }
                self.order_guest(caller, |token| ToGuest::UpdateLimits { token, limits });
            }
            Request::Resize(resize) => match self.token_of(&caller, resize.exec.as_ref()) {
                Some(token) => self.tell_guest(&caller, &ToGuest::Resize { token, rows: resize.rows, columns: resize.columns }),
                None => caller.refuse("no such exec", libc::ESRCH),
            },
            Request::CloseStdin(exec) => match self.token_of(&caller, exec.as_ref()) {
                Some(token) => self.tell_guest(&caller, &ToGuest::CloseStdin { token }),
                None => caller.refuse("no such exec", libc::ESRCH),
            },
            Request::Trace(on) => {
                self.state().traced_by_client |= on;
                self.tell_guest(&caller, &ToGuest::Trace { on });
            }
            Request::Pause | Request::Resume => self.pause(&caller, matches!(request, Request::Pause)),
            Request::Stats => caller.answer(self.stats()),
            Request::State => caller.answer(self.status()),
            Request::Wait => self.request_wait(caller),
            Request::Events => {
                caller.answer(json!({}));
                self.state().subscribers.push(caller.connection);
            }
        }
    }

    fn request_start(&self, caller: Caller) {
        {
            let paused = self.is_paused();
            let mut state = self.state();
            if state.phase != Phase::Created || paused {
                drop(state);
                caller.refuse("the container has been started already, or is paused", libc::EALREADY);
                return;
            }
            state.phase = Phase::Starting;
            state.starts.push(caller);
        }
        let _ = self.send(&ToGuest::Start);
    }

    fn request_wait(&self, caller: Caller) {
        let mut state = self.state();
        if let Phase::Stopped { status } = state.phase {
            drop(state);
            caller.answer(json!({ "status": status }));
        } else {
            state.waiters.push(caller);
        }
    }

    /// Passes a request on under a new token; false: it was refused.
    fn ask_guest(&self, caller: Caller, is_exec: bool, message: impl FnOnce(u32) -> ToGuest) -> bool {
        let token = {
            let mut state = self.state();
            if let Phase::Stopped { .. } = state.phase {
                drop(state);
                caller.refuse("the container has ended", libc::ESRCH);
                return false;
            }
            let token = state.next_token;
            state.next_token = token.wrapping_add(1).max(1);
            state.pending.insert(token, caller.clone());
            if is_exec {
                state.execs.push(Exec { token, caller: caller.clone() });
            }
            token
        };
        if let Err(errno) = self.send(&message(token)) {
            let mut state = self.state();
            state.pending.remove(&token);
            state.execs.retain(|exec| exec.token != token);
            drop(state);
            refuse_busy(&caller, errno);
            return false;
        }
        true
    }

    /// What a paused guest does when it is resumed, as a frozen process does. Nobody waits for that.
    fn order_guest(&self, caller: Caller, message: impl FnOnce(u32) -> ToGuest) {
        const NOBODYS: u32 = 0;
        if self.is_paused() {
            self.tell_guest(&caller, &message(NOBODYS));
        } else {
            self.ask_guest(caller, false, message);
        }
    }

    /// For messages that the guest does not answer.
    fn tell_guest(&self, caller: &Caller, message: &ToGuest) {
        match self.send(message) {
            Ok(()) => caller.answer(json!({})),
            Err(errno) => refuse_busy(caller, errno),
        }
    }

    /// An exec is named by its request's id, which is the client's own: first the one of the same connection is meant.
    fn token_of(&self, caller: &Caller, exec: Option<&Value>) -> Option<u32> {
        let Some(id) = exec else { return Some(0) };
        let state = self.state();
        let named = || state.execs.iter().rev().filter(|exec| exec.caller.id == *id);
        let own = named().find(|exec| Arc::ptr_eq(&exec.caller.connection, &caller.connection));
        own.or_else(|| named().next()).map(|exec| exec.token)
    }

    fn pause(&self, caller: &Caller, stop: bool) {
        let Some(parts) = self.parts.get() else { return caller.refuse("not yet", libc::EAGAIN) };
        if stop {
            let vcpus = parts.vcpus.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            parts.gate.pause(&vcpus);
        } else {
            parts.gate.resume();
        }
        caller.answer(json!({}));
    }

    fn is_paused(&self) -> bool {
        self.parts.get().is_some_and(|parts| parts.gate.is_paused())
    }

    fn status(&self) -> Value {
        let phase = self.state().phase;
        let paused = self.is_paused();
        match phase {
            Phase::Stopped { status } => json!({ "status": "stopped", "exit_status": status }),
            _ if paused => json!({ "status": "paused" }),
            Phase::Running => json!({ "status": "running" }),
            Phase::Created | Phase::Starting | Phase::Failed => json!({ "status": "created" }),
        }
    }

    /// A client has gone: nobody waits there any more. (Its exec'd processes go on.)
    pub(super) fn forget(&self, connection: &Arc<Connection>) {
        let gone = |caller: &Caller| Arc::ptr_eq(&caller.connection, connection);
        let mut state = self.state();
        let subscribers = state.subscribers.len();
        state.subscribers.retain(|subscriber| !Arc::ptr_eq(subscriber, connection));
        let last_reader_left = subscribers > 0 && state.subscribers.is_empty();
        let unread_trace = state.traced_by_client && last_reader_left;
        state.waiters.retain(|caller| !gone(caller));
        state.starts.retain(|caller| !gone(caller));
        state.pending.retain(|_, caller| !gone(caller));
        drop(state);
        if unread_trace {
            // A guest that does not fetch its messages traces on, for nobody.
            let _ = self.send(&ToGuest::Trace { on: false });
        }
    }
}

fn refuse_busy(caller: &Caller, errno: Errno) {
    caller.refuse("the guest does not fetch its messages", errno.raw_os_error());
}
