//! The tracee's side: where it stops for its tracer, and how it goes on.

use super::attach::tell;
use super::registers::{Registers, TRAP_FLAG};
use super::{Kind, Mode, Stop};
use crate::errno::ENOSYS;
use crate::process::Task;
use crate::sched;
use crate::signal::{self, Scope};
use crate::wait::Interruptible;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hal::context::UserContext;
use linux_abi::ptrace::{
    PTRACE_EVENT_EXEC, PTRACE_EVENT_EXIT, PTRACE_EVENT_SECCOMP, PTRACE_EVENT_STOP, PTRACE_O_TRACEEXEC, PTRACE_O_TRACESECCOMP,
    PTRACE_O_TRACESYSGOOD,
};
use linux_abi::signal::{SigInfo, CLD_STOPPED, CLD_TRAPPED, SIGTRAP, SI_USER, TRAP_BRKPT};

/// What marks the stops of system calls, with PTRACE_O_TRACESYSGOOD.
const SYSGOOD: u32 = 0x80;
const TRAP: u32 = SIGTRAP as u32;

/// How the tracer let a thread go on.
struct Resumed {
    signal: i32,
    /// What PTRACE_SETSIGINFO left.
    info: Option<SigInfo>,
}

/// Stops until the tracer lets the thread go on. None: it is not traced (any more), or has to end.
fn stop(task: &Arc<Task>, context: &mut UserContext, kind: Kind, code: u32, info: Option<SigInfo>) -> Option<Resumed> {
    if let Some(memory) = task.memory() {
        memory.leave_trampoline(context);
        memory.forbid_patches();
    }
    let is_exit = code == TRAP | PTRACE_EVENT_EXIT << 8;
    if task.signals.must_exit() && !is_exit {
        return None;
    }
    let tracer = {
        let mut state = task.tracee.state.lock();
        if !task.tracee.is_on() {
            return None;
        }
        let tracer = state.tracer.upgrade()?;
        if state.mode.steps() {
            context.rflags &= !TRAP_FLAG;
        }
        let registers = Box::new(Registers::of(task, context));
        state.stop = Some(Stop { kind, code, info, registers, reported: false, listening: false, resumed: None });
        tracer
    };
    let cause = if kind == Kind::Group { CLD_STOPPED } else { CLD_TRAPPED };
    tell(&tracer, SigInfo::child(cause, task.tid(), task.credentials().uid, (code & 0x7f) as i32, 0, 0), true);
    let how = if is_exit { Interruptible::No } else { Interruptible::Killable };
    let goes_on = || task.tracee.state.lock().stop.as_ref().is_none_or(|stop| stop.resumed.is_some());
    while !goes_on() && !task.interrupted(how) {
        sched::sleep(how, None, goes_on);
    }
    let stop = task.tracee.state.lock().stop.take()?;
    stop.registers.put_back(task, context);
    stop.resumed.map(|signal| Resumed { signal, info: stop.info })
}

fn mode(task: &Task) -> Mode {
    if task.tracee.is_on() {
        task.tracee.state.lock().mode
    } else {
        Mode::Continue
    }
}

/// A stop that is not for a signal. What the tracer sends along comes as a signal of its own.
fn stop_for(task: &Arc<Task>, context: &mut UserContext, kind: Kind, code: u32) {
    let resumed =
        stop(task, context, kind, code, Some(SigInfo::from_process(SIGTRAP, code as i32, task.process.pid, task.credentials().uid)));
    if let Some(Resumed { signal: number @ 1.., .. }) = resumed {
        send(task, number);
    }
}

fn send(task: &Arc<Task>, number: i32) {
    let _ = signal::queue(Scope::Thread(task), SigInfo::from_process(number, SI_USER, task.tracee.tracer_pid(), 0), false);
}

/// A signal is about to be delivered: what is to be delivered instead. None: nothing.
pub fn signal(task: &Arc<Task>, context: &mut UserContext, info: SigInfo) -> Option<SigInfo> {
    let Some(resumed) = stop(task, context, Kind::Signal, info.signo as u32, Some(info)) else { return Some(info) };
    let info = match resumed.info {
        _ if resumed.signal == 0 => return None,
        Some(info) if info.signo == resumed.signal => info,
        _ => SigInfo::from_process(resumed.signal, SI_USER, task.tracee.tracer_pid(), 0),
    };
    if task.signals.blocked().contains(info.signo) {
        let _ = signal::queue(Scope::Thread(task), info, false);
        return None;
    }
    Some(info)
}

/// A system call begins. False: it is not to be run; its result is what RAX has.
pub fn call_begins(task: &Arc<Task>, context: &mut UserContext) -> bool {
    let mode = mode(task);
    if !matches!(mode, Mode::Syscall | Mode::Emulate | Mode::EmulateStep) {
        return true;
    }
    context.rax = ENOSYS.as_return();
    stop_for(task, context, Kind::CallBegin, call_code(task));
    mode == Mode::Syscall && context.orig_rax != u64::MAX && !task.signals.must_exit()
}

/// A system call has ended.
pub fn call_ends(task: &Arc<Task>, context: &mut UserContext) {
    match mode(task) {
        Mode::Syscall => stop_for(task, context, Kind::CallEnd, call_code(task)),
        Mode::Step | Mode::EmulateStep => step_ends(task, context),
        Mode::Continue | Mode::Emulate => {}
    }
}

fn call_code(task: &Task) -> u32 {
    if task.tracee.has_option(PTRACE_O_TRACESYSGOOD) {
        TRAP | SYSGOOD
    } else {
        TRAP
    }
}

/// A step that no instruction of the program ends: that into a system call, or into a handler.
fn step_ends(task: &Arc<Task>, context: &mut UserContext) {
    let info = SigInfo::fault(SIGTRAP, TRAP_BRKPT, context.rip);
    if let Some(Resumed { signal: number @ 1.., .. }) = stop(task, context, Kind::Signal, TRAP, Some(info)) {
        send(task, number);
    }
}

/// A handler is about to run.
pub fn handler_begins(task: &Arc<Task>, context: &mut UserContext) {
    if mode(task).steps() {
        step_ends(task, context);
    }
}

/// PTRACE_EVENT_*, if the tracer asked for it.
pub fn event(task: &Arc<Task>, context: &mut UserContext, event: u32, message: u64) {
    if task.tracee.has_option(1 << event) {
        task.tracee.state.lock().message = message;
        let kind = if event == PTRACE_EVENT_SECCOMP { Kind::Seccomp } else { Kind::Event };
        stop_for(task, context, kind, TRAP | event << 8);
    }
}

/// execve(2) has succeeded.
pub fn executed(task: &Arc<Task>, context: &mut UserContext, old_tid: u32) {
    if task.tracee.has_option(PTRACE_O_TRACEEXEC) {
        event(task, context, PTRACE_EVENT_EXEC, u64::from(old_tid));
    } else if task.tracee.is_on() && !task.tracee.state.lock().seized {
        signal::send_to_task(task, SigInfo::from_process(SIGTRAP, SI_USER, task.process.pid, task.credentials().uid));
    }
}

/// The thread is about to end.
pub fn exiting(task: &Arc<Task>, context: &mut UserContext) {
    let process = &task.process;
    let status = if process.is_exiting() { process.exit_status() } else { task.tracee.exit_status.load(Ordering::Relaxed) };
    event(task, context, PTRACE_EVENT_EXIT, u64::from(status));
}

/// A seccomp filter answered SECCOMP_RET_TRACE. False: nobody is there to ask.
pub fn filtered(task: &Arc<Task>, context: &mut UserContext, data: u32) -> bool {
    let asked = task.tracee.has_option(PTRACE_O_TRACESECCOMP);
    if asked {
        context.rax = ENOSYS.as_return();
        event(task, context, PTRACE_EVENT_SECCOMP, u64::from(data));
    }
    asked
}

/// The thread has parked for its process's stop: its tracer sees that. False: it stays parked.
///
/// What else a seized thread was to show its tracer, this stop shows. A SIGCONT from here on asks for one more, so that a tracer which
/// learns of a stop that is over does not wait for its end.
pub fn group_stop(task: &Arc<Task>, context: &mut UserContext) -> bool {
    let seized = {
        let mut state = task.tracee.state.lock();
        state.trap = false;
        state.seized
    };
    let Some(signal) = task.process.signals.stop_signal() else { return true };
    let code = signal as u32 | if seized { PTRACE_EVENT_STOP << 8 } else { 0 };
    let info = seized.then(|| SigInfo::new(signal, code as i32));
    stop(task, context, Kind::Group, code, info).is_some() && task.tracee.is_on()
}

/// PTRACE_INTERRUPT, an automatic attachment, or SIGCONT: the thread stops with PTRACE_EVENT_STOP.
pub fn trap(task: &Arc<Task>, context: &mut UserContext) {
    task.signals.set_trap(false);
    if !core::mem::take(&mut task.tracee.state.lock().trap) {
        return;
    }
    if task.process.signals.stop_signal().is_some() {
        group_stop(task, context);
    } else {
        stop_for(task, context, Kind::Event, TRAP | PTRACE_EVENT_STOP << 8);
    }
}

/// SIGCONT was sent: a seized thread's tracer is to see that, whether or not the process was stopped.
pub fn continued(task: &Arc<Task>) {
    if !task.tracee.is_on() {
        return;
    }
    let mut state = task.tracee.state.lock();
    if !state.seized {
        return;
    }
    state.trap = true;
    task.signals.set_trap(true);
    if let Some(stop) = state.stop.as_mut().filter(|stop| stop.listening) {
        stop.resumed = Some(0);
    }
}

/// The last thing before the program runs on.
pub fn before_program(task: &Task, context: &mut UserContext) {
    if mode(task).steps() {
        context.rflags |= TRAP_FLAG;
        context.fast = 0;
    }
}
