//! The registers of a program, as saved on entry to the library OS, at the top of the task's kernel stack.

/// General registers, SSE registers and the return frame. The layout is known to `entry.s`.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct UserContext {
    pub xmm: [[u64; 2]; 16],
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// System-call number on entry by a system call, else u64::MAX.
    pub orig_rax: u64,
    /// 1: came in as a patched call, may leave by a jump (RCX and R11 are dead). 0: leave by IRETQ with every register.
    pub fast: u64,
    /// The program's MXCSR stays in its register (the library OS computes nothing in floating point); XSAVE takes it from there.
    pub reserved: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub pad: u64,
}

impl UserContext {
    /// A program about to run its first instruction.
    pub const fn new(rip: u64, rsp: u64) -> Self {
        Self {
            xmm: [[0; 2]; 16],
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbp: 0,
            rbx: 0,
            r11: 0,
            r10: 0,
            r9: 0,
            r8: 0,
            rax: 0,
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            orig_rax: u64::MAX,
            fast: 0,
            reserved: 0,
            rip,
            cs: abi::layout::USER_CS as u64,
            rflags: 0x202,
            rsp,
            ss: abi::layout::USER_DS as u64,
            pad: 0,
        }
    }

    /// The six arguments of a system call.
    pub const fn args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }
}
