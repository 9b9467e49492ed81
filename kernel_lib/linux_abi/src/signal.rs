//! Signals: numbers, codes and the layouts of siginfo, sigaction, the stack and the signal frame (signal(7), sigaction(2)).

use zerocopy::{FromBytes, Immutable, IntoBytes};

pub const SIGHUP: i32 = 1;
pub const SIGINT: i32 = 2;
pub const SIGQUIT: i32 = 3;
pub const SIGILL: i32 = 4;
pub const SIGTRAP: i32 = 5;
pub const SIGABRT: i32 = 6;
pub const SIGBUS: i32 = 7;
pub const SIGFPE: i32 = 8;
pub const SIGKILL: i32 = 9;
pub const SIGUSR1: i32 = 10;
pub const SIGSEGV: i32 = 11;
pub const SIGUSR2: i32 = 12;
pub const SIGPIPE: i32 = 13;
pub const SIGALRM: i32 = 14;
pub const SIGTERM: i32 = 15;
pub const SIGSTKFLT: i32 = 16;
pub const SIGCHLD: i32 = 17;
pub const SIGCONT: i32 = 18;
pub const SIGSTOP: i32 = 19;
pub const SIGTSTP: i32 = 20;
pub const SIGTTIN: i32 = 21;
pub const SIGTTOU: i32 = 22;
pub const SIGURG: i32 = 23;
pub const SIGXCPU: i32 = 24;
pub const SIGXFSZ: i32 = 25;
pub const SIGVTALRM: i32 = 26;
pub const SIGPROF: i32 = 27;
pub const SIGWINCH: i32 = 28;
pub const SIGIO: i32 = 29;
pub const SIGPWR: i32 = 30;
pub const SIGSYS: i32 = 31;
pub const SIGRTMIN: i32 = 32;
pub const SIGRTMAX: i32 = 64;

pub const SIG_DFL: u64 = 0;
pub const SIG_IGN: u64 = 1;

pub const SA_NOCLDSTOP: u64 = 1;
pub const SA_NOCLDWAIT: u64 = 2;
pub const SA_SIGINFO: u64 = 4;
pub const SA_UNSUPPORTED: u64 = 0x400;
pub const SA_EXPOSE_TAGBITS: u64 = 0x800;
pub const SA_RESTORER: u64 = 0x0400_0000;
pub const SA_ONSTACK: u64 = 0x0800_0000;
pub const SA_RESTART: u64 = 0x1000_0000;
pub const SA_NODEFER: u64 = 0x4000_0000;
pub const SA_RESETHAND: u64 = 0x8000_0000;
/// What Linux on x86-64 knows (it clears the rest, so that a program can ask what is supported).
pub const SA_KNOWN: u64 =
    SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_RESTORER | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESETHAND | SA_EXPOSE_TAGBITS;

pub const SIG_BLOCK: i32 = 0;
pub const SIG_UNBLOCK: i32 = 1;
pub const SIG_SETMASK: i32 = 2;

pub const SS_ONSTACK: i32 = 1;
pub const SS_DISABLE: i32 = 2;
pub const SS_AUTODISARM: i32 = 1 << 31;
pub const MINSIGSTKSZ: u64 = 2048;

// si_code
pub const SI_USER: i32 = 0;
pub const SI_KERNEL: i32 = 0x80;
pub const SI_QUEUE: i32 = -1;
pub const SI_TIMER: i32 = -2;
pub const SI_MESGQ: i32 = -3;
pub const SI_ASYNCIO: i32 = -4;
pub const SI_SIGIO: i32 = -5;
pub const SI_TKILL: i32 = -6;
pub const ILL_ILLOPN: i32 = 2;
pub const FPE_INTDIV: i32 = 1;
pub const FPE_INTOVF: i32 = 2;
pub const FPE_FLTDIV: i32 = 3;
pub const FPE_FLTOVF: i32 = 4;
pub const FPE_FLTUND: i32 = 5;
pub const FPE_FLTRES: i32 = 6;
pub const FPE_FLTINV: i32 = 7;
pub const SEGV_MAPERR: i32 = 1;
pub const SEGV_ACCERR: i32 = 2;
pub const BUS_ADRALN: i32 = 1;
pub const BUS_ADRERR: i32 = 2;
pub const TRAP_BRKPT: i32 = 1;
pub const TRAP_TRACE: i32 = 2;
pub const CLD_EXITED: i32 = 1;
pub const CLD_KILLED: i32 = 2;
pub const CLD_DUMPED: i32 = 3;
pub const CLD_TRAPPED: i32 = 4;
pub const CLD_STOPPED: i32 = 5;
pub const CLD_CONTINUED: i32 = 6;
pub const SYS_SECCOMP: i32 = 1;

/// siginfo_t, 128 bytes. The fields behind the head depend on the code; the constructors below know how.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
pub struct SigInfo {
    pub signo: i32,
    pub errno: i32,
    pub code: i32,
    pub pad: i32,
    pub fields: [u32; 28],
}

impl SigInfo {
    pub const fn new(signo: i32, code: i32) -> Self {
        Self { signo, errno: 0, code, pad: 0, fields: [0; 28] }
    }
    /// si_pid, si_uid: kill, tgkill, and what else comes from a process.
    pub const fn from_process(signo: i32, code: i32, pid: u32, uid: u32) -> Self {
        let mut info = Self::new(signo, code);
        info.fields[0] = pid;
        info.fields[1] = uid;
        info
    }
    /// si_addr: SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP.
    pub const fn fault(signo: i32, code: i32, address: u64) -> Self {
        let mut info = Self::new(signo, code);
        info.fields[0] = address as u32;
        info.fields[1] = (address >> 32) as u32;
        info
    }
    /// SIGCHLD: times in clock ticks (100 a second).
    pub const fn child(code: i32, pid: u32, uid: u32, status: i32, utime: i64, stime: i64) -> Self {
        let mut info = Self::from_process(SIGCHLD, code, pid, uid);
        info.fields[2] = status as u32;
        info.fields[4] = utime as u32;
        info.fields[5] = (utime >> 32) as u32;
        info.fields[6] = stime as u32;
        info.fields[7] = (stime >> 32) as u32;
        info
    }
    /// POSIX timers: si_timerid, si_overrun, si_value.
    pub const fn timer(signo: i32, id: i32, value: u64) -> Self {
        let mut info = Self::new(signo, SI_TIMER);
        info.fields[0] = id as u32;
        info.fields[2] = value as u32;
        info.fields[3] = (value >> 32) as u32;
        info
    }
    pub const fn set_overrun(&mut self, overrun: i32) {
        self.fields[1] = overrun as u32;
    }
    /// SIGIO and F_SETSIG: si_band, si_fd.
    pub const fn poll(signo: i32, code: i32, band: u64, fd: i32) -> Self {
        let mut info = Self::fault(signo, code, band);
        info.fields[2] = fd as u32;
        info
    }
    /// SIGSYS: si_call_addr, si_syscall, si_arch; si_errno is the filter's data.
    pub const fn seccomp(address: u64, number: i32, data: u32) -> Self {
        let mut info = Self::fault(SIGSYS, SYS_SECCOMP, address);
        info.errno = data as i32;
        info.fields[2] = number as u32;
        info.fields[3] = super::seccomp::AUDIT_ARCH_X86_64;
        info
    }
    pub const fn pid(&self) -> u32 {
        self.fields[0]
    }
    pub const fn uid(&self) -> u32 {
        self.fields[1]
    }
    pub const fn status(&self) -> i32 {
        self.fields[2] as i32
    }
    pub const fn address(&self) -> u64 {
        self.fields[0] as u64 | (self.fields[1] as u64) << 32
    }
    /// si_value of SI_QUEUE, SI_TIMER and SI_MESGQ.
    pub const fn value(&self) -> u64 {
        self.fields[2] as u64 | (self.fields[3] as u64) << 32
    }
}

/// struct kernel_sigaction of x86-64.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
pub struct SigAction {
    pub handler: u64,
    pub flags: u64,
    pub restorer: u64,
    pub mask: u64,
}

/// stack_t.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
pub struct SigStack {
    pub sp: u64,
    pub flags: i32,
    pub pad: u32,
    pub size: u64,
}

/// struct sigcontext (mcontext_t), 256 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
pub struct SigContext {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub eflags: u64,
    pub cs: u16,
    pub gs: u16,
    pub fs: u16,
    pub ss: u16,
    pub err: u64,
    pub trapno: u64,
    pub oldmask: u64,
    pub cr2: u64,
    pub fpstate: u64,
    pub reserved: [u64; 8],
}

pub const UC_FP_XSTATE: u64 = 1;
pub const UC_SIGCONTEXT_SS: u64 = 2;
pub const UC_STRICT_RESTORE_SS: u64 = 4;

/// struct ucontext, 304 bytes (the kernel's, with an 8-byte mask).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
pub struct UContext {
    pub flags: u64,
    pub link: u64,
    pub stack: SigStack,
    pub mcontext: SigContext,
    pub sigmask: u64,
}

/// struct rt_sigframe: what the handler finds at its stack pointer, 440 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
pub struct RtSigFrame {
    pub pretcode: u64,
    pub uc: UContext,
    pub info: SigInfo,
}

/// Offset of struct _fpx_sw_bytes in the legacy region of the frame's XSAVE area.
pub const FPX_SW_OFFSET: usize = 464;
pub const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
pub const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
pub const FP_XSTATE_MAGIC2_SIZE: usize = 4;

/// struct _fpx_sw_bytes, 48 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
pub struct FpxSwBytes {
    pub magic1: u32,
    pub extended_size: u32,
    pub xfeatures: u64,
    pub xstate_size: u32,
    pub padding: [u32; 7],
}
