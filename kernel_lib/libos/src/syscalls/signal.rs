//! Signals: actions, masks, sending, waiting.

use super::{full, Call, Entry};
use crate::errno::{Errno, EAGAIN, EINTR, EINVAL, ENOMEM, EPERM, ESRCH};
use crate::process::{tree, Process};
use crate::signal::{self, set, AltStack, Scope, SigSet};
use crate::wait::Interruptible;
use crate::SysResult;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::user;
use linux_abi::signal::{
    SigAction, SigInfo, SigStack, MINSIGSTKSZ, SA_KNOWN, SIG_BLOCK, SIG_SETMASK, SIG_UNBLOCK, SI_TKILL, SI_USER, SS_AUTODISARM, SS_DISABLE,
    SS_ONSTACK,
};
use linux_abi::time::Timespec;

pub const CALLS: &[Entry] = &[
    full(13, "rt_sigaction", sys_sigaction),
    full(14, "rt_sigprocmask", sys_sigprocmask),
    full(15, "rt_sigreturn", sys_sigreturn),
    full(34, "pause", |call| suspend(call)),
    full(62, "kill", sys_kill),
    full(127, "rt_sigpending", sys_sigpending),
    full(128, "rt_sigtimedwait", sys_sigtimedwait),
    full(129, "rt_sigqueueinfo", sys_sigqueueinfo),
    full(130, "rt_sigsuspend", sys_sigsuspend),
    full(131, "sigaltstack", sys_sigaltstack),
    full(200, "tkill", |call| thread_kill(call, None, call.int(0), call.int(1))),
    full(219, "restart_syscall", sys_restart),
    full(234, "tgkill", |call| thread_kill(call, Some(call.int(0)), call.int(1), call.int(2))),
    full(297, "rt_tgsigqueueinfo", sys_tgsigqueueinfo),
];

const SET_BYTES: usize = 8;

fn check_set(bytes: usize) -> Result<(), Errno> {
    if bytes == SET_BYTES {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

/// rt_sigaction(2).
fn sys_sigaction(call: &mut Call<'_>) -> SysResult {
    let (number, new, old) = (call.int(0), call.args[1], call.args[2]);
    check_set(call.size(3))?;
    let wanted: Option<SigAction> = if new == 0 { None } else { Some(user::read(new)?) };
    if !set::is_valid(number) || (wanted.is_some() && SigSet::UNBLOCKABLE.contains(number)) {
        return Err(EINVAL);
    }
    let process = &call.task.process;
    let actions = process.signals.actions();
    let before = match wanted {
        None => actions.get(number),
        Some(mut action) => {
            action.flags &= SA_KNOWN;
            action.mask &= !SigSet::UNBLOCKABLE.0;
            let before = actions.set(number, action);
            if signal::ignored(&action, number) {
                signal::forget(process, number);
            }
            before
        }
    };
    if old != 0 {
        user::write(old, &before)?;
    }
    Ok(0)
}

/// rt_sigprocmask(2).
fn sys_sigprocmask(call: &mut Call<'_>) -> SysResult {
    let (how, new, old) = (call.int(0), call.args[1], call.args[2]);
    check_set(call.size(3))?;
    let before = call.task.signals.blocked();
    if new != 0 {
        let set = SigSet(user::read(new)?);
        call.task.signals.set_blocked(match how {
            SIG_BLOCK => before.union(set),
            SIG_UNBLOCK => before.without(set),
            SIG_SETMASK => set,
            _ => return Err(EINVAL),
        });
    }
    if old != 0 {
        user::write(old, &before.0)?;
    }
    Ok(0)
}

/// rt_sigreturn(2): the registers are the frame's, RAX too.
fn sys_sigreturn(call: &mut Call<'_>) -> SysResult {
    signal::sigreturn(call.task, call.context);
    Ok(call.context.rax as usize)
}

/// rt_sigpending(2).
fn sys_sigpending(call: &mut Call<'_>) -> SysResult {
    let bytes = call.size(1);
    if bytes > SET_BYTES {
        return Err(EINVAL);
    }
    let task = call.task;
    let pending = task.signals.pending().union(task.process.signals.pending()).and(task.signals.blocked());
    user::write_bytes(call.args[0], &pending.0.to_le_bytes()[..bytes])?;
    Ok(0)
}

/// Sleeps until a signal comes that a handler runs for, or that ends the process.
fn suspend(call: &Call<'_>) -> SysResult {
    let task = call.task;
    while !task.interrupted(Interruptible::Yes) {
        crate::sched::sleep(Interruptible::Yes, None, || false);
    }
    Err(EINTR)
}

/// rt_sigsuspend(2).
fn sys_sigsuspend(call: &mut Call<'_>) -> SysResult {
    check_set(call.size(1))?;
    let mask = SigSet(user::read(call.args[0])?);
    call.task.signals.replace_mask(mask);
    suspend(call)
}

/// rt_sigtimedwait(2), sigwaitinfo(2).
fn sys_sigtimedwait(call: &mut Call<'_>) -> SysResult {
    check_set(call.size(3))?;
    let wanted = SigSet(user::read(call.args[0])?).without(SigSet::UNBLOCKABLE);
    let deadline = match call.args[2] {
        0 => None,
        address => {
            let timeout = user::read::<Timespec>(address)?.to_ns().ok_or(EINVAL)?;
            Some(hal::time::monotonic().saturating_add(timeout))
        }
    };
    let task = call.task;
    let result = task.process.signals.arrival.wait(Interruptible::Yes, deadline, || signal::take(task, wanted));
    let info = result.map_err(|errno| if errno == crate::errno::ETIMEDOUT { EAGAIN } else { errno })?;
    if call.args[1] != 0 {
        user::write(call.args[1], &info)?;
    }
    Ok(info.signo as usize)
}

/// sigaltstack(2).
fn sys_sigaltstack(call: &mut Call<'_>) -> SysResult {
    let sp = call.context.rsp;
    let before = call.task.signals.alt_stack.lock().report(sp);
    if call.args[0] != 0 {
        let new: SigStack = user::read(call.args[0])?;
        let mode = new.flags & !SS_AUTODISARM;
        if before.flags & SS_ONSTACK != 0 {
            return Err(EPERM);
        }
        let stack = match mode {
            SS_DISABLE => AltStack { flags: 0, ..AltStack::default() },
            0 | SS_ONSTACK if new.size < MINSIGSTKSZ => return Err(ENOMEM),
            0 | SS_ONSTACK => AltStack { sp: new.sp, size: new.size, flags: new.flags & SS_AUTODISARM },
            _ => return Err(EINVAL),
        };
        *call.task.signals.alt_stack.lock() = stack;
    }
    if call.args[1] != 0 {
        user::write(call.args[1], &before)?;
    }
    Ok(0)
}

/// restart_syscall(2).
fn sys_restart(call: &mut Call<'_>) -> SysResult {
    let restart = call.task.restart.lock().take();
    restart.map_or(Err(EINTR), |restart| restart.resume(call.task))
}

fn own_info(call: &Call<'_>, number: i32, code: i32) -> SigInfo {
    SigInfo::from_process(number, code, call.task.process.pid, call.task.credentials().uid)
}

fn valid_or_probe(number: i32) -> Result<(), Errno> {
    if number == 0 || set::is_valid(number) {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

/// kill(2).
fn sys_kill(call: &mut Call<'_>) -> SysResult {
    let (pid, number) = (call.int(0), call.int(1));
    valid_or_probe(number)?;
    let own = &call.task.process;
    let info = own_info(call, number, SI_USER);
    let send = |target: &Arc<Process>| {
        signal::check_permission(call.task, target, number)?;
        if number == 0 {
            Ok(())
        } else {
            signal::queue(Scope::Process(target), info, false)
        }
    };
    let targets: Vec<Arc<Process>> = match pid {
        1.. => alloc::vec![of_id(pid as u32).ok_or(ESRCH)?],
        0 => tree::group(own.group()),
        -1 => tree::processes().into_iter().filter(|process| !process.is_init() && !Arc::ptr_eq(process, own)).collect(),
        i32::MIN => return Err(ESRCH),
        _ => tree::group(pid.unsigned_abs()),
    };
    // Success when at least one could be sent to; EPERM when there are some, but none that may be.
    let mut result = Err(ESRCH);
    for target in &targets {
        match send(target) {
            Ok(()) => result = Ok(0),
            Err(errno) if result.is_err() => result = Err(errno),
            Err(_) => {}
        }
    }
    result
}

/// A process by its id or by the id of one of its threads.
fn of_id(id: u32) -> Option<Arc<Process>> {
    tree::find_process(id).or_else(|| tree::find_task(id).map(|task| task.process.clone()))
}

/// tgkill(2), tkill(2).
fn thread_kill(call: &Call<'_>, group: Option<i32>, tid: i32, number: i32) -> SysResult {
    if tid <= 0 || group.is_some_and(|group| group <= 0) {
        return Err(EINVAL);
    }
    let info = own_info(call, number, SI_TKILL);
    send_to_thread(call, group, tid, number, info)
}

fn send_to_thread(call: &Call<'_>, group: Option<i32>, tid: i32, number: i32, info: SigInfo) -> SysResult {
    let target = if tid as u32 == call.task.tid() { Some(call.task.clone()) } else { tree::find_task(tid as u32) };
    let Some(target) = target else {
        // The leader of a process that ended is a zombie: it still has its id.
        let zombie = tree::find_process(tid as u32).filter(|process| group.is_none_or(|group| process.pid == group as u32));
        return zombie.map_or(Err(ESRCH), |process| signal::check_permission(call.task, &process, number).map(|()| 0));
    };
    if group.is_some_and(|group| target.process.pid != group as u32) {
        return Err(ESRCH);
    }
    valid_or_probe(number)?;
    signal::check_permission(call.task, &target.process, number)?;
    if number != 0 {
        signal::queue(Scope::Thread(&target), info, false)?;
    }
    Ok(0)
}

fn queued_info(call: &Call<'_>, address: u64, number: i32, target: u32) -> Result<SigInfo, Errno> {
    let mut info: SigInfo = user::read(address)?;
    info.signo = number;
    // Only the kernel and the process itself may claim to be the kernel or kill(2).
    if (info.code >= 0 || info.code == SI_TKILL) && target != call.task.process.pid {
        return Err(EPERM);
    }
    Ok(info)
}

/// rt_sigqueueinfo(2).
fn sys_sigqueueinfo(call: &mut Call<'_>) -> SysResult {
    let (pid, number) = (call.int(0), call.int(1));
    let info = queued_info(call, call.args[2], number, pid as u32)?;
    valid_or_probe(number)?;
    let target = if pid > 0 { of_id(pid as u32) } else { None }.ok_or(ESRCH)?;
    signal::check_permission(call.task, &target, number)?;
    if number != 0 {
        signal::queue(Scope::Process(&target), info, false)?;
    }
    Ok(0)
}

/// rt_tgsigqueueinfo(2).
fn sys_tgsigqueueinfo(call: &mut Call<'_>) -> SysResult {
    let (group, tid, number) = (call.int(0), call.int(1), call.int(2));
    if group <= 0 || tid <= 0 {
        return Err(EINVAL);
    }
    let info = queued_info(call, call.args[3], number, group as u32)?;
    send_to_thread(call, Some(group), tid, number, info)
}
