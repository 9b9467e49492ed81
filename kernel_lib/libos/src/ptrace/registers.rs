//! A stopped thread's registers, as the tracer sees and changes them.

use crate::errno::{Errno, EFAULT, EINVAL, EIO};
use crate::process::Task;
use crate::signal::{is_canonical, load_program_xstate, program_xstate, RESTORABLE_FLAGS};
use abi::layout::{LIBOS_BASE, USER_CS, USER_DS};
use alloc::vec::Vec;
use hal::context::UserContext;
use hal::xstate::XState;
use linux_abi::ptrace::{UserRegisters, NT_PRFPREG, NT_PRSTATUS, NT_X86_XSTATE, USER_BYTES, USER_DEBUG_REGISTERS};
use linux_abi::signal::FPX_SW_OFFSET;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of FXSAVE's area, with which XSAVE's begins (struct user_fpregs_struct).
const LEGACY_BYTES: usize = 512;
const XSTATE_BV: core::ops::Range<usize> = 512..520;
pub(super) const TRAP_FLAG: u64 = 0x100;

pub(super) struct Registers {
    context: UserContext,
    fs_base: u64,
    gs_base: u64,
    extended: XState,
    changed: bool,
    extended_changed: bool,
}

impl Registers {
    /// Of the calling thread.
    pub(super) fn of(task: &Task, context: &UserContext) -> Self {
        Self {
            context: *context,
            fs_base: task.thread.fs_base(),
            gs_base: task.thread.gs_base(),
            extended: program_xstate(task, context),
            changed: false,
            extended_changed: false,
        }
    }

    /// Back into the calling thread.
    pub(super) fn put_back(self, task: &Task, context: &mut UserContext) {
        if self.changed {
            *context = self.context;
            context.fast = 0;
            task.thread.set_fs_base(self.fs_base);
            task.thread.set_gs_base(self.gs_base);
        }
        if self.extended_changed {
            context.fast = 0;
            load_program_xstate(task, context, &self.extended);
        }
    }

    pub(super) const fn context(&self) -> &UserContext {
        &self.context
    }

    /// struct user_regs_struct.
    pub(super) fn general(&self) -> UserRegisters {
        let context = &self.context;
        UserRegisters {
            r15: context.r15,
            r14: context.r14,
            r13: context.r13,
            r12: context.r12,
            rbp: context.rbp,
            rbx: context.rbx,
            r11: context.r11,
            r10: context.r10,
            r9: context.r9,
            r8: context.r8,
            rax: context.rax,
            rcx: context.rcx,
            rdx: context.rdx,
            rsi: context.rsi,
            rdi: context.rdi,
            orig_rax: context.orig_rax,
            rip: context.rip,
            cs: u64::from(USER_CS),
            eflags: context.rflags,
            rsp: context.rsp,
            ss: u64::from(USER_DS),
            fs_base: self.fs_base,
            gs_base: self.gs_base,
            ..UserRegisters::default()
        }
    }

    /// EIO: an address where no program can be. Segment selectors stay what they are: there is one of each.
    pub(super) fn set_general(&mut self, new: &UserRegisters) -> Result<(), Errno> {
        if new.fs_base >= LIBOS_BASE || new.gs_base >= LIBOS_BASE || !is_canonical(new.rip) {
            return Err(EIO);
        }
        let context = &mut self.context;
        context.r15 = new.r15;
        context.r14 = new.r14;
        context.r13 = new.r13;
        context.r12 = new.r12;
        context.rbp = new.rbp;
        context.rbx = new.rbx;
        context.r11 = new.r11;
        context.r10 = new.r10;
        context.r9 = new.r9;
        context.r8 = new.r8;
        context.rax = new.rax;
        context.rcx = new.rcx;
        context.rdx = new.rdx;
        context.rsi = new.rsi;
        context.rdi = new.rdi;
        context.orig_rax = new.orig_rax;
        context.rip = new.rip;
        context.rflags = context.rflags & !RESTORABLE_FLAGS | new.eflags & RESTORABLE_FLAGS & !TRAP_FLAG;
        context.rsp = new.rsp;
        (self.fs_base, self.gs_base) = (new.fs_base, new.gs_base);
        self.changed = true;
        Ok(())
    }

    /// PTRACE_PEEKUSER: a word of struct user. EIO: not a word of it.
    pub(super) fn word(&self, offset: u64) -> Result<u64, Errno> {
        let index = word_index(offset)?;
        // What is behind the general registers is empty, the debug registers too.
        Ok(<[u64; 27]>::read_from_bytes(self.general().as_bytes()).map_or(0, |words| words.get(index).copied().unwrap_or(0)))
    }

    /// PTRACE_POKEUSER. EINVAL: a hardware breakpoint, which there is none of.
    pub(super) fn set_word(&mut self, offset: u64, value: u64) -> Result<(), Errno> {
        let index = word_index(offset)?;
        let mut words = <[u64; 27]>::read_from_bytes(self.general().as_bytes()).map_err(|_| EIO)?;
        if let Some(word) = words.get_mut(index) {
            *word = value;
            return self.set_general(&UserRegisters::read_from_bytes(words.as_bytes()).map_err(|_| EIO)?);
        }
        match (offset >= USER_DEBUG_REGISTERS, value) {
            (true, 0) => Ok(()),
            (true, _) => Err(EINVAL),
            (false, _) => Err(EIO),
        }
    }

    /// A register set as core files have it. EINVAL: there is none of that number.
    pub(super) fn set(&self, number: u64) -> Result<Vec<u8>, Errno> {
        match number {
            NT_PRSTATUS => Ok(self.general().as_bytes().to_vec()),
            NT_PRFPREG => Ok(self.extended.bytes()[..LEGACY_BYTES].to_vec()),
            NT_X86_XSTATE => {
                let mut area = self.extended.bytes().to_vec();
                // Debuggers read here what the rest of the area means.
                area[FPX_SW_OFFSET..FPX_SW_OFFSET + 8].copy_from_slice(&hal::xstate::features().0.to_le_bytes());
                Ok(area)
            }
            _ => Err(EINVAL),
        }
    }

    /// Writes a register set, or its beginning.
    pub(super) fn change_set(&mut self, number: u64, bytes: &[u8]) -> Result<(), Errno> {
        match number {
            NT_PRSTATUS => {
                let mut general = self.general();
                let part = bytes.len().min(size_of::<UserRegisters>());
                general.as_mut_bytes()[..part].copy_from_slice(&bytes[..part]);
                self.set_general(&general)
            }
            NT_PRFPREG => self.change_extended(&bytes[..bytes.len().min(LEGACY_BYTES)], 3),
            NT_X86_XSTATE if bytes.len() < XSTATE_BV.end => Err(EFAULT),
            NT_X86_XSTATE => self.change_extended(&bytes[..bytes.len().min(self.extended.bytes().len())], 0),
            _ => Err(EINVAL),
        }
    }

    /// `present`: components that are in the area besides those of its header.
    fn change_extended(&mut self, bytes: &[u8], present: u64) -> Result<(), Errno> {
        let area = self.extended.bytes_mut();
        area[..bytes.len()].copy_from_slice(bytes);
        let header = u64::from_le_bytes(area[XSTATE_BV].try_into().map_err(|_| EIO)?) | present;
        area[XSTATE_BV].copy_from_slice(&header.to_le_bytes());
        self.extended.sanitize();
        self.extended_changed = true;
        Ok(())
    }
}

fn word_index(offset: u64) -> Result<usize, Errno> {
    if offset.is_multiple_of(8) && offset < USER_BYTES {
        Ok((offset / 8) as usize)
    } else {
        Err(EIO)
    }
}
