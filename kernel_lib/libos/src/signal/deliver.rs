//! On the way back to the program: default actions, handlers, and what becomes of an interrupted call (signal(7)).

use super::frame;
use super::set::{default_action, Default, SigSet};
use super::{stop, take};
use crate::errno::{Errno, EINTR, ERESTARTNOHAND, ERESTARTNOINTR, ERESTARTSYS, ERESTART_RESTARTBLOCK};
use crate::process::{self, Task};
use crate::ptrace;
use alloc::sync::Arc;
use hal::context::UserContext;
use linux_abi::signal::{SigAction, SigInfo, SA_NODEFER, SA_RESETHAND, SA_RESTART, SIGKILL, SIGSEGV, SIGSTOP, SIG_DFL, SIG_IGN, SI_KERNEL};

const RESTART_SYSCALL: u64 = 219;
/// Bytes of the SYSCALL instruction, which is run again.
const SYSCALL_BYTES: u64 = 2;

/// Delivers what waits. True: the thread has to end instead of returning to the program.
pub fn deliver(task: &Arc<Task>, context: &mut UserContext) -> bool {
    let mut handled = false;
    loop {
        if task.signals.must_exit() {
            return true;
        }
        if task.signals.must_trap() {
            ptrace::trap(task, context);
            continue;
        }
        if task.signals.must_stop() {
            stop::park(task, context);
            continue;
        }
        let Some(mut info) = take(task, SigSet::ALL.without(task.signals.blocked())) else { break };
        if task.tracee.is_on() {
            let Some(instead) = ptrace::signal(task, context, info) else { continue };
            info = instead;
        }
        let actions = task.process.signals.actions();
        let action = actions.get(info.signo);
        match action.handler {
            SIG_IGN => {}
            SIG_DFL => default(task, info.signo),
            _ => {
                if action.flags & SA_RESETHAND != 0 {
                    actions.set(info.signo, SigAction { handler: SIG_DFL, ..action });
                }
                if !handled {
                    restart_for_handler(context, &action);
                }
                handle(task, context, &info, &action);
                ptrace::handler_begins(task, context);
                handled = true;
            }
        }
    }
    if !handled {
        restart_without_handler(context);
        task.signals.restore_mask();
    }
    context.orig_rax = u64::MAX;
    false
}

fn default(task: &Arc<Task>, signal: i32) {
    let process = &task.process;
    // PID 1 takes no default action but those that came by force: those never get here.
    match default_action(signal) {
        Default::Ignore => {}
        _ if process.ignores_unhandled() && signal != SIGKILL && signal != SIGSTOP => {}
        Default::Stop => {
            // Members of an orphaned group are stopped by SIGSTOP only: nobody could make them go on.
            if signal == SIGSTOP || !process::session::group_is_orphaned(process.group()) {
                stop::begin(task, signal);
            }
        }
        Default::Terminate => process::begin_group_exit(process, signal as u32),
    }
}

fn handle(task: &Arc<Task>, context: &mut UserContext, info: &SigInfo, action: &SigAction) {
    let before = task.signals.take_saved().unwrap_or(task.signals.blocked());
    if let Some(memory) = task.memory() {
        memory.leave_trampoline(context);
    }
    process::rseq::signal(task, context);
    if frame::build(task, context, info, action, before).is_err() {
        // No room for the frame: a SIGSEGV that cannot be handled on the same stack ends the process.
        if info.signo == SIGSEGV {
            task.process.signals.actions().set(SIGSEGV, SigAction::default());
        }
        super::force(task, SigInfo::new(SIGSEGV, SI_KERNEL));
        return;
    }
    let mut mask = SigSet(action.mask).union(task.signals.blocked());
    if action.flags & SA_NODEFER == 0 {
        mask = mask.union(SigSet::one(info.signo));
    }
    task.signals.set_blocked(mask);
}

/// The call's error when it is one that a program never sees.
fn restart_error(context: &UserContext) -> Option<Errno> {
    if context.orig_rax == u64::MAX {
        return None;
    }
    let error = Errno((context.rax as i64).wrapping_neg() as i32);
    let internal = [ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK];
    ((context.rax as i64) < 0 && (context.rax as i64) > -4096 && internal.contains(&error)).then_some(error)
}

fn again(context: &mut UserContext, number: u64) {
    context.rax = number;
    context.rip -= SYSCALL_BYTES;
    context.fast = 0;
}

/// A handler runs: the call ends with EINTR unless it is to be restarted behind the handler.
fn restart_for_handler(context: &mut UserContext, action: &SigAction) {
    let Some(error) = restart_error(context) else { return };
    let restart = error == ERESTARTNOINTR || (error == ERESTARTSYS && action.flags & SA_RESTART != 0);
    if restart {
        again(context, context.orig_rax);
    } else {
        context.rax = EINTR.as_return();
    }
    context.orig_rax = u64::MAX;
}

/// No handler ran: the program never learns that its call was interrupted.
pub fn restart_without_handler(context: &mut UserContext) {
    let Some(error) = restart_error(context) else { return };
    let number = if error == ERESTART_RESTARTBLOCK { RESTART_SYSCALL } else { context.orig_rax };
    again(context, number);
    context.orig_rax = u64::MAX;
}
