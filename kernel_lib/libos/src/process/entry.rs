//! From the hardware's upcalls to system calls and signals, and back to the program.

use super::{create, exit, rseq, seccomp, Task};
use crate::errno::{Errno, EINTR, ERESTARTNOHAND, ERESTARTSYS};
use crate::mm::reclaim;
use crate::signal::{self, fault};
use crate::{ptrace, sched, syscalls, SysResult};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hal::context::UserContext;
use hal::upcall::Access;

const DEBUG_EXCEPTION: u8 = 1;
const TRAP_FLAG: u64 = 0x100;

/// Calls that signal(7) restarts behind a handler with SA_RESTART, when they ended with EINTR.
const RESTARTED: &[usize] = &[
    0, 1, 2, 16, 17, 18, 19, 20, 40, 42, 43, 44, 45, 46, 47, 61, 72, 73, 85, 242, 243, 247, 257, 275, 276, 278, 285, 288, 295, 296, 299,
    307, 318, 326, 327, 328, 437,
];
/// Calls that go on when no handler ran (stop and continue), but end with EINTR behind any handler: poll, select, pause, msgsnd, msgrcv,
/// sigsuspend, pselect6, ppoll.
const RESTARTED_WITHOUT_HANDLER: &[usize] = &[7, 23, 34, 69, 70, 130, 270, 271];

const fn flags() -> [u8; syscalls::NUMBERS] {
    let mut table = [0; syscalls::NUMBERS];
    let mut index = 0;
    while index < RESTARTED.len() {
        table[RESTARTED[index]] = 1;
        index += 1;
    }
    index = 0;
    while index < RESTARTED_WITHOUT_HANDLER.len() {
        table[RESTARTED_WITHOUT_HANDLER[index]] = 2;
        index += 1;
    }
    table
}
static RESTART: [u8; syscalls::NUMBERS] = flags();

/// A system call came in: dispatches, applies restart rules, leaves the result in RAX.
pub fn system_call(context: &mut UserContext) {
    let task = sched::current();
    reclaim::before_call();
    if context.fast == 0 {
        if let Some(memory) = task.memory() {
            memory.slow_call(context);
        }
    }
    let result = if task.tracee.is_on() && !ptrace::call_begins(&task, context) { Ok(context.rax as usize) } else { serve(&task, context) };
    match result {
        Ok(value) => {
            context.rax = value as u64;
            if task.tracee.is_on() {
                return under_tracer(task, context);
            }
            if task.signals.deliverable(&task) {
                return leave(task, context);
            }
        }
        Err(errno) => {
            if let Some(failed) = hal::cpu::counters().syscalls_failed.get(context.orig_rax as usize) {
                failed.fetch_add(1, Ordering::Relaxed);
            }
            context.rax = as_restart(errno, context.orig_rax).as_return();
            if task.tracee.is_on() {
                return under_tracer(task, context);
            }
            if errno.0 >= 512 || errno == EINTR || task.signals.deliverable(&task) {
                return leave(task, context);
            }
        }
    }
    context.orig_rax = u64::MAX;
    if rseq::moved(&task) {
        leave(task, context);
    }
}

fn serve(task: &Arc<Task>, context: &mut UserContext) -> SysResult {
    let outcome = if task.seccomp.is_on() { seccomp::check(task, context) } else { seccomp::Verdict::Run };
    match outcome {
        seccomp::Verdict::Run if syscalls::trace::is_on() => traced(task, context),
        seccomp::Verdict::Run => syscalls::dispatch(task, context),
        seccomp::Verdict::Answer(result) => result,
    }
}

/// The way back of a call whose thread is traced.
#[cold]
fn under_tracer(task: Arc<Task>, context: &mut UserContext) {
    ptrace::call_ends(&task, context);
    leave(task, context);
}

#[cold]
fn traced(task: &Arc<Task>, context: &mut UserContext) -> SysResult {
    use syscalls::trace;
    let call = trace::describe(context);
    if trace::never_returns(context.orig_rax) {
        trace::finished(task, &call, Ok(0));
        return syscalls::dispatch(task, context);
    }
    let result = syscalls::dispatch(task, context);
    trace::finished(task, &call, result);
    result
}

fn as_restart(errno: Errno, number: u64) -> Errno {
    match RESTART.get(number as usize) {
        Some(1) if errno == EINTR => ERESTARTSYS,
        Some(2) if errno == EINTR => ERESTARTNOHAND,
        _ => errno,
    }
}

/// The way back to the program: signals, stops, the end; then what it sees of its vCPU.
fn leave(task: Arc<Task>, context: &mut UserContext) {
    loop {
        if signal::deliver(&task, context) {
            ptrace::exiting(&task, context);
            exit::finish(task);
        }
        rseq::update(&task, context);
        if !task.signals.deliverable(&task) {
            return ptrace::before_program(&task, context);
        }
    }
}

/// On the way back to the program with something pending: deliver signals, stop, exit.
pub fn before_return(context: &mut UserContext) {
    let task = sched::current();
    create::begin(&task, context);
    leave(task, context);
}

/// A page fault of the program.
pub fn page_fault(context: &mut UserContext, access: Access) {
    let task = sched::current();
    fault::page_fault(&task, access);
    if task.signals.deliverable(&task) {
        leave(task, context);
    }
}

/// A page fault of the library OS on the program's memory: true to try again.
pub fn copy_fault(access: Access) -> bool {
    let Some(task) = sched::try_current() else { return false };
    task.times.minor_faults.fetch_add(1, Ordering::Relaxed);
    task.memory().is_some_and(|memory| memory.fault(access) == crate::mm::FaultResult::Done)
}

/// Any other exception of the program.
pub fn exception(context: &mut UserContext, vector: u8, error: u64) {
    let task = sched::current();
    if vector == 13 && task.memory().is_some_and(|memory| memory.trapped_cpuid(context, task.process.thread_list().len() == 1)) {
        if context.rflags & TRAP_FLAG != 0 {
            fault::exception(&task, context, DEBUG_EXCEPTION, 0);
        }
        return leave(task, context);
    }
    if vector == DEBUG_EXCEPTION && task.memory().is_some_and(|memory| memory.stepped_into_trampoline(context)) {
        return system_call(context);
    }
    fault::exception(&task, context, vector, error);
    leave(task, context);
}

/// The host file under a mapping vanished at this window address: SIGBUS.
pub fn bus_error(context: &mut UserContext, window_address: u64) {
    let task = sched::current();
    fault::bus_error(&task, window_address);
    leave(task, context);
}
