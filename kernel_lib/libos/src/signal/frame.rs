//! The signal frame, exactly as x86-64 Linux lays it out (arch/x86/include/asm/sigframe.h, uapi/asm/sigcontext.h):
//!
//! ```text
//! higher addresses   128 bytes of red zone (not on the alternate stack)
//!                    XSAVE area, 64-byte aligned, FP_XSTATE_MAGIC2 behind it
//!                    struct rt_sigframe: return address, ucontext, siginfo; its address + 8 is 16-byte aligned
//! ```

use super::set::SigSet;
use super::state::AltStack;
use crate::errno::{Errno, EFAULT};
use crate::process::Task;
use alloc::sync::Arc;
use hal::context::UserContext;
use hal::user;
use hal::xstate::XState;
use linux_abi::signal::{
    FpxSwBytes, RtSigFrame, SigAction, SigContext, SigInfo, UContext, FPX_SW_OFFSET, FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2,
    FP_XSTATE_MAGIC2_SIZE, SA_ONSTACK, SA_RESTORER, SIGSEGV, SI_KERNEL, SS_AUTODISARM, SS_DISABLE, UC_FP_XSTATE, UC_SIGCONTEXT_SS,
    UC_STRICT_RESTORE_SS,
};
use zerocopy::{FromBytes, IntoBytes};

const RED_ZONE: u64 = 128;
const FRAME_BYTES: u64 = core::mem::size_of::<RtSigFrame>() as u64;
/// Direction, resume and trap flag: a handler starts without them.
const CLEARED_FLAGS: u64 = 0x400 | 0x1_0000 | 0x100;
/// Flags that a program may set by rt_sigreturn: AC RF OF DF TF SF ZF AF PF CF.
pub const RESTORABLE_FLAGS: u64 = 0x4_0000 | 0x1_0000 | 0x800 | 0x400 | 0x100 | 0x80 | 0x40 | 0x10 | 0x4 | 0x1;
/// `mov $15,%rax; syscall`: every C library's restorer, byte by byte, because debuggers recognise it by them.
const RESTORER: [u8; 9] = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
// Offsets in the legacy region of an XSAVE area.
const XMM: usize = 160;
const XSTATE_BV: usize = 512;
const SSE: u64 = 2;
const LEGACY_BYTES: usize = 512;

/// An area to work in, of any content: the thread's last one if there is one, because to zero another takes as long as to fill it.
fn spare_xstate(task: &Task) -> XState {
    task.signals.spare_xstate.lock().take().unwrap_or_else(XState::initial)
}

fn keep_xstate(task: &Task, state: XState) {
    *task.signals.spare_xstate.lock() = Some(state);
}

/// The program's extended state: the live registers, with the SSE registers of its context put in.
pub fn program_xstate(task: &Task, context: &UserContext) -> XState {
    let mut state = spare_xstate(task);
    task.thread.save_xstate_to(&mut state);
    let area = state.bytes_mut();
    area[XMM..XMM + 256].copy_from_slice(context.xmm.as_bytes());
    let present = u64::from_le_bytes(area[XSTATE_BV..XSTATE_BV + 8].try_into().unwrap_or([0; 8])) | SSE;
    area[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&present.to_le_bytes());
    state
}

/// The other way round: the state into the live registers, its SSE part into the context.
pub fn load_program_xstate(task: &Task, context: &mut UserContext, state: &XState) {
    let area = state.bytes();
    let word = |at: usize| u64::from_le_bytes(area[at..at + 8].try_into().unwrap_or([0; 8]));
    if word(XSTATE_BV) & SSE != 0 {
        for (index, register) in context.xmm.iter_mut().enumerate() {
            *register = [word(XMM + index * 16), word(XMM + index * 16 + 8)];
        }
    } else {
        context.xmm = [[0; 2]; 16];
    }
    task.thread.load_xstate(state);
}

/// Builds the frame of a handler and turns the context to it. Err: the frame could not be written.
pub fn build(task: &Arc<Task>, context: &mut UserContext, info: &SigInfo, action: &SigAction, mask: SigSet) -> Result<(), Errno> {
    // x86-64 has no other way back than the C library's restorer.
    if action.flags & SA_RESTORER == 0 {
        return Err(EFAULT);
    }
    let alt = *task.signals.alt_stack.lock();
    let nested = alt.size != 0 && alt.contains(context.rsp);
    let mut sp = context.rsp.wrapping_sub(RED_ZONE);
    let mut on_alt = nested;
    if action.flags & SA_ONSTACK != 0 && alt.size != 0 && !nested {
        sp = alt.sp.wrapping_add(alt.size);
        on_alt = true;
    }
    let state = program_xstate(task, context);
    let bytes = state.bytes().len();
    let fpstate = sp.wrapping_sub((bytes + FP_XSTATE_MAGIC2_SIZE) as u64) & !63;
    let frame = (fpstate.wrapping_sub(FRAME_BYTES) & !15).wrapping_sub(8);
    if on_alt && (frame <= alt.sp || frame - alt.sp > alt.size) {
        return Err(EFAULT);
    }
    write_xstate(fpstate, &state)?;
    keep_xstate(task, state);
    let fault = *task.signals.fault.lock();
    let flags = if alt.size == 0 { SS_DISABLE } else { alt.flags };
    let content = RtSigFrame {
        pretcode: way_back(task, action.restorer),
        uc: UContext {
            flags: UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
            link: 0,
            stack: linux_abi::signal::SigStack { sp: alt.sp, flags, pad: 0, size: alt.size },
            mcontext: SigContext {
                err: fault.error,
                trapno: fault.trapno,
                cr2: fault.cr2,
                oldmask: mask.0,
                fpstate,
                ..save_registers(context)
            },
            sigmask: mask.0,
        },
        info: *info,
    };
    user::write(frame, &content)?;
    if alt.flags & SS_AUTODISARM != 0 {
        *task.signals.alt_stack.lock() = AltStack::default();
    }
    load_program_xstate(task, context, XState::shared_initial());
    context.rdi = info.signo as u64;
    context.rsi = frame + core::mem::offset_of!(RtSigFrame, info) as u64;
    context.rdx = frame + core::mem::offset_of!(RtSigFrame, uc) as u64;
    context.rax = 0;
    context.rsp = frame;
    context.rip = action.handler;
    context.rflags &= !CLEARED_FLAGS;
    context.fast = 0;
    Ok(())
}

/// Where the handler returns to: the C library's restorer, or what does the same without SYSCALL and is known to unwinders as well.
fn way_back(task: &Task, restorer: u64) -> u64 {
    let mut code = [0; RESTORER.len()];
    let ordinary = user::read_bytes(restorer, &mut code).is_ok() && code == RESTORER;
    task.memory().filter(|_| ordinary).and_then(|memory| memory.sigreturn()).unwrap_or(restorer)
}

fn save_registers(context: &UserContext) -> SigContext {
    SigContext {
        r8: context.r8,
        r9: context.r9,
        r10: context.r10,
        r11: context.r11,
        r12: context.r12,
        r13: context.r13,
        r14: context.r14,
        r15: context.r15,
        rdi: context.rdi,
        rsi: context.rsi,
        rbp: context.rbp,
        rbx: context.rbx,
        rdx: context.rdx,
        rax: context.rax,
        rcx: context.rcx,
        rsp: context.rsp,
        rip: context.rip,
        eflags: context.rflags,
        cs: abi::layout::USER_CS,
        ss: abi::layout::USER_DS,
        ..SigContext::default()
    }
}

fn write_xstate(address: u64, state: &XState) -> Result<(), Errno> {
    let area = state.bytes();
    let software = FpxSwBytes {
        magic1: FP_XSTATE_MAGIC1,
        extended_size: (area.len() + FP_XSTATE_MAGIC2_SIZE) as u32,
        xfeatures: hal::xstate::features().0,
        xstate_size: area.len() as u32,
        padding: [0; 7],
    };
    user::write_bytes(address, &area[..FPX_SW_OFFSET])?;
    user::write(address + FPX_SW_OFFSET as u64, &software)?;
    user::write_bytes(address + LEGACY_BYTES as u64, &area[LEGACY_BYTES..])?;
    user::write(address + area.len() as u64, &FP_XSTATE_MAGIC2)
}

/// rt_sigreturn(2): everything as the frame says. A frame that cannot be read or makes no sense is a SIGSEGV.
pub fn sigreturn(task: &Arc<Task>, context: &mut UserContext) {
    if restore(task, context).is_err() {
        super::force(task, SigInfo::new(SIGSEGV, SI_KERNEL));
    }
}

fn restore(task: &Arc<Task>, context: &mut UserContext) -> Result<(), Errno> {
    // The handler's RET took the return address.
    let frame: RtSigFrame = user::read(context.rsp.wrapping_sub(8))?;
    let registers = &frame.uc.mcontext;
    if !is_canonical(registers.rip) {
        return Err(EFAULT);
    }
    let state = match registers.fpstate {
        0 => XState::initial(),
        address => read_xstate(address, spare_xstate(task))?,
    };
    task.signals.set_blocked(SigSet(frame.uc.sigmask));
    load_program_xstate(task, context, &state);
    keep_xstate(task, state);
    context.r8 = registers.r8;
    context.r9 = registers.r9;
    context.r10 = registers.r10;
    context.r11 = registers.r11;
    context.r12 = registers.r12;
    context.r13 = registers.r13;
    context.r14 = registers.r14;
    context.r15 = registers.r15;
    context.rdi = registers.rdi;
    context.rsi = registers.rsi;
    context.rbp = registers.rbp;
    context.rbx = registers.rbx;
    context.rdx = registers.rdx;
    context.rax = registers.rax;
    context.rcx = registers.rcx;
    context.rsp = registers.rsp;
    context.rip = registers.rip;
    context.rflags = context.rflags & !RESTORABLE_FLAGS | registers.eflags & RESTORABLE_FLAGS | 0x202;
    context.fast = 0;
    // "Do not restart": the registers are what they are.
    context.orig_rax = u64::MAX;
    let stack = frame.uc.stack;
    if stack.flags & SS_DISABLE != 0 {
        *task.signals.alt_stack.lock() = AltStack::default();
    } else if stack.size >= linux_abi::signal::MINSIGSTKSZ {
        *task.signals.alt_stack.lock() = AltStack { sp: stack.sp, size: stack.size, flags: stack.flags & SS_AUTODISARM };
    }
    Ok(())
}

pub const fn is_canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

/// Reads a frame's XSAVE area into `state`. Without the software bytes that say so, or when they do not fit, only the legacy region counts.
fn read_xstate(address: u64, mut state: XState) -> Result<XState, Errno> {
    let mut legacy = [0; LEGACY_BYTES];
    user::read_bytes(address, &mut legacy)?;
    let software = FpxSwBytes::read_from_prefix(&legacy[FPX_SW_OFFSET..]).map_err(|_| EFAULT)?.0;
    let area = state.bytes_mut();
    let bytes = area.len();
    let claimed = software.xstate_size as usize;
    let extended = software.magic1 == FP_XSTATE_MAGIC1
        && claimed >= LEGACY_BYTES + 64
        && claimed <= bytes
        && software.extended_size as usize >= claimed + FP_XSTATE_MAGIC2_SIZE
        && user::load_u32(address + claimed as u64) == Ok(FP_XSTATE_MAGIC2);
    area[..LEGACY_BYTES].copy_from_slice(&legacy);
    if extended {
        user::read_bytes(address + LEGACY_BYTES as u64, &mut area[LEGACY_BYTES..claimed])?;
        area[claimed..].fill(0);
        let wanted = u64::from_le_bytes(area[XSTATE_BV..XSTATE_BV + 8].try_into().unwrap_or([0; 8])) & software.xfeatures;
        area[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&wanted.to_le_bytes());
    } else {
        area[LEGACY_BYTES..].fill(0);
        area[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&3u64.to_le_bytes());
    }
    state.sanitize();
    Ok(state)
}
