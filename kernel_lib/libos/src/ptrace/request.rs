//! The tracer's side: what may be asked of a stopped tracee.

use super::attach::detach;
use super::registers::Registers;
use super::{Kind, Mode, State, Stop};
use crate::errno::{Errno, EFAULT, EINVAL, EIO, ESRCH};
use crate::process::Task;
use crate::signal::{self, SigSet};
use crate::{sched, SysResult};
use alloc::sync::Arc;
use hal::user;
use linux_abi::ptrace::*;
use linux_abi::seccomp::AUDIT_ARCH_X86_64;
use linux_abi::signal::{SigInfo, SIGKILL, SI_KERNEL};
use zerocopy::IntoBytes;

const WORD: usize = 8;

/// A request about a thread that the caller traces. ESRCH: it does not, or the thread is not stopped.
pub fn request(tracer: &Arc<Task>, target: &Arc<Task>, request: u32, address: u64, data: u64) -> SysResult {
    let traced = target.tracee.tracer().is_some_and(|process| Arc::ptr_eq(&process, &tracer.process));
    if !traced {
        return Err(ESRCH);
    }
    match request {
        PTRACE_INTERRUPT => return interrupt(target),
        PTRACE_KILL => {
            signal::send_to_process_forced(&target.process, SigInfo::new(SIGKILL, SI_KERNEL));
            return Ok(0);
        }
        _ => with_stop(target, |_, _| Ok(()))?,
    }
    match request {
        PTRACE_PEEKTEXT | PTRACE_PEEKDATA => user::write(data, &peek(target, address)?),
        PTRACE_POKETEXT | PTRACE_POKEDATA => poke(target, address, data),
        PTRACE_PEEKUSER => user::write(data, &with_registers(target, |registers| registers.word(address))?),
        PTRACE_POKEUSER => with_registers(target, |registers| registers.set_word(address, data)),
        PTRACE_CONT => resume(target, Mode::Continue, data),
        PTRACE_SYSCALL => resume(target, Mode::Syscall, data),
        PTRACE_SINGLESTEP => resume(target, Mode::Step, data),
        PTRACE_SYSEMU => resume(target, Mode::Emulate, data),
        PTRACE_SYSEMU_SINGLESTEP => resume(target, Mode::EmulateStep, data),
        PTRACE_DETACH => signal_number(data).map(|number| detach(&tracer.process, target, number)),
        PTRACE_LISTEN => listen(target),
        PTRACE_GETREGS => write_set(target, NT_PRSTATUS, data),
        PTRACE_SETREGS => read_set(target, NT_PRSTATUS, data),
        PTRACE_GETFPREGS => write_set(target, NT_PRFPREG, data),
        PTRACE_SETFPREGS => read_set(target, NT_PRFPREG, data),
        PTRACE_GETREGSET => get_set(target, address, data),
        PTRACE_SETREGSET => put_set(target, address, data),
        PTRACE_SETOPTIONS | PTRACE_OLDSETOPTIONS => set_options(target, data),
        PTRACE_GETEVENTMSG => user::write(data, &with_stop(target, |state, _| Ok(state.message))?),
        PTRACE_GETSIGINFO => user::write(data, &with_stop(target, |_, stop| stop.info.ok_or(EINVAL))?),
        PTRACE_SETSIGINFO => {
            let info: SigInfo = user::read(data)?;
            with_stop(target, |_, stop| stop.info.as_mut().map(|old| *old = info).ok_or(EINVAL))
        }
        PTRACE_GETSIGMASK | PTRACE_SETSIGMASK if address != WORD as u64 => Err(EINVAL),
        PTRACE_GETSIGMASK => user::write(data, &target.signals.blocked().0),
        PTRACE_SETSIGMASK => user::read(data).map(|mask| target.signals.set_blocked(SigSet(mask))),
        PTRACE_GET_SYSCALL_INFO => return syscall_info(target, address, data),
        _ => Err(EIO),
    }?;
    Ok(0)
}

/// Works on a stopped thread's state. ESRCH: it is not stopped, or goes on already.
fn with_stop<T>(target: &Task, work: impl FnOnce(&State, &mut Stop) -> Result<T, Errno>) -> Result<T, Errno> {
    let mut state = target.tracee.state.lock();
    let mut stop = state.stop.take().ok_or(ESRCH)?;
    let result = if stop.resumed.is_none() && !stop.listening { work(&state, &mut stop) } else { Err(ESRCH) };
    state.stop = Some(stop);
    result
}

fn with_registers<T>(target: &Task, work: impl FnOnce(&mut Registers) -> Result<T, Errno>) -> Result<T, Errno> {
    with_stop(target, |_, stop| work(&mut stop.registers))
}

fn peek(target: &Task, address: u64) -> Result<u64, Errno> {
    let mut word = [0; WORD];
    let memory = target.memory().ok_or(EIO)?;
    if memory.read(address, &mut word, true) == WORD {
        Ok(u64::from_le_bytes(word))
    } else {
        Err(EIO)
    }
}

fn poke(target: &Task, address: u64, value: u64) -> Result<(), Errno> {
    let memory = target.memory().ok_or(EIO)?;
    if memory.write(address, &value.to_le_bytes(), true) == WORD {
        Ok(())
    } else {
        Err(EIO)
    }
}

fn signal_number(data: u64) -> Result<i32, Errno> {
    if data <= 64 {
        Ok(data as i32)
    } else {
        Err(EIO)
    }
}

fn resume(target: &Arc<Task>, mode: Mode, data: u64) -> Result<(), Errno> {
    let number = signal_number(data)?;
    let kind = with_stop(target, |_, stop| {
        stop.resumed = Some(number);
        Ok(stop.kind)
    })?;
    target.tracee.state.lock().mode = mode;
    if kind == Kind::Group {
        // It runs, although its process is stopped.
        target.signals.set_stop(false);
    }
    sched::wake(target);
    Ok(())
}

/// PTRACE_LISTEN. EIO: not seized, or stopped for something else.
fn listen(target: &Arc<Task>) -> Result<(), Errno> {
    let wanted = with_stop(target, |state, stop| {
        if !state.seized || stop.code >> 8 != PTRACE_EVENT_STOP {
            return Err(EIO);
        }
        stop.listening = true;
        if state.trap {
            stop.resumed = Some(0);
        }
        Ok(())
    });
    sched::wake(target);
    wanted
}

/// PTRACE_INTERRUPT. EIO: not seized.
fn interrupt(target: &Arc<Task>) -> SysResult {
    {
        let mut state = target.tracee.state.lock();
        if !state.seized {
            return Err(EIO);
        }
        state.trap = true;
        if let Some(stop) = state.stop.as_mut().filter(|stop| stop.listening) {
            stop.resumed = Some(0);
        }
    }
    target.signals.set_trap(true);
    signal::poke(target);
    Ok(0)
}

fn set_options(target: &Task, options: u64) -> Result<(), Errno> {
    if options & !u64::from(PTRACE_O_KNOWN) != 0 {
        return Err(EINVAL);
    }
    target.tracee.state.lock().options = options as u32;
    Ok(())
}

/// PTRACE_GETREGS, PTRACE_GETFPREGS: a whole set.
fn write_set(target: &Task, set: u64, data: u64) -> Result<(), Errno> {
    user::write_bytes(data, &with_registers(target, |registers| registers.set(set))?)
}

fn read_set(target: &Task, set: u64, data: u64) -> Result<(), Errno> {
    let mut bytes = with_registers(target, |registers| registers.set(set))?;
    user::read_bytes(data, &mut bytes)?;
    with_registers(target, |registers| registers.change_set(set, &bytes))
}

/// PTRACE_GETREGSET: as much as the struct iovec at `data` has room for.
fn get_set(target: &Task, set: u64, data: u64) -> Result<(), Errno> {
    let [base, room]: [u64; 2] = user::read(data)?;
    let bytes = with_registers(target, |registers| registers.set(set))?;
    let part = bytes.len().min(room as usize);
    user::write_bytes(base, &bytes[..part])?;
    user::write(data + WORD as u64, &(part as u64))
}

fn put_set(target: &Task, set: u64, data: u64) -> Result<(), Errno> {
    let [base, given]: [u64; 2] = user::read(data)?;
    let whole = with_registers(target, |registers| registers.set(set))?.len();
    if given % WORD as u64 != 0 {
        return Err(EINVAL);
    }
    let mut bytes = alloc::vec![0; whole.min(given as usize)];
    user::read_bytes(base, &mut bytes).map_err(|_| EFAULT)?;
    with_registers(target, |registers| registers.change_set(set, &bytes))?;
    user::write(data + WORD as u64, &(bytes.len() as u64))
}

/// PTRACE_GET_SYSCALL_INFO: bytes that there are, of which as many as there is room for are stored.
fn syscall_info(target: &Task, room: u64, data: u64) -> SysResult {
    let info = with_stop(target, |state, stop| {
        let context = stop.registers.context();
        let mut info =
            SyscallInfo { arch: AUDIT_ARCH_X86_64, instruction_pointer: context.rip, stack_pointer: context.rsp, ..SyscallInfo::default() };
        if matches!(stop.kind, Kind::CallBegin | Kind::Seccomp) {
            info.words[0] = context.orig_rax;
            info.words[1..7].copy_from_slice(&context.args());
        }
        match stop.kind {
            Kind::CallBegin => info.op = PTRACE_SYSCALL_INFO_ENTRY,
            Kind::Seccomp => {
                info.op = PTRACE_SYSCALL_INFO_SECCOMP;
                info.words[7] = state.message;
            }
            Kind::CallEnd => {
                info.op = PTRACE_SYSCALL_INFO_EXIT;
                info.words[0] = context.rax;
                info.words[1] = u64::from((-4095..0).contains(&(context.rax as i64)));
            }
            Kind::Signal | Kind::Group | Kind::Event => {}
        }
        Ok(info)
    })?;
    let bytes = &info.as_bytes()[..info.bytes()];
    user::write_bytes(data, &bytes[..bytes.len().min(room as usize)])?;
    Ok(bytes.len())
}
