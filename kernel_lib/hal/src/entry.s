# The nanokernel (ring 0: a few instructions a path) and the library OS's entry and exit code (ring 3).
#
# Offsets within PerCpu (cpu.rs) and UserContext (context.rs) are spelled out here; both files say so.
# A vCPU's area is 128 KiB aligned: +0x1000 PerCpu, stacks end at +0x3000 ring 0, +0x4000 IST 1, +0x5000 exceptions, +0x6000 interrupts.
#
# Ring 3 cannot switch interrupts off. So every place where an interrupt may find the library OS between two worlds is known by
# address and put right by hal_entry_interrupt:
#   - the SYSCALL stub and hal_entry_system_call up to the stack switch: as if the SYSCALL had not been executed yet;
#   - hal_entry_fast before its stack switch: as if at the SYSCALL before the return address;
#   - hal_exit .. hal_exit_end: everything is still in the UserContext, the interrupt is taken as one of the program.

.set PC_USER_RSP, 8
.set PC_STACK_TOP, 16
.set PC_RAX, 24
.set PC_IRQ_RAX, 32
.set PC_RBX, 40
.set PC_RCX, 48
.set PC_PENDING, 56
.set PC_FAULT, 64
.set PC_IRQ_RBX, 72
.set PC_IRQ_RCX, 80
.set PC_IRQ_RDX, 88
.set PC_IRQ_VECTOR, 96
.set PC_GS_SET, 104
.set PC_GS, 112
.set PC_NESTED_COUNT, 320
.set PC_FRAME_EXCEPTION, 176
.set PC_FRAME_FAULT, 224
.set PC_FRAME_INTERRUPT, 272

.set CTX_FAST, 256 + 16*8
.set CTX_RIP, 256 + 18*8
.set CTX_RCX, 256 + 11*8
.set CTX_RSP, 256 + 21*8
.set CTX_SIZE, 256 + 24*8

# IST 1 of the TSS as seen from PerCpu: its low 16 bits choose between the two interrupt stacks of the area.
.set TSS_IST1, 0x24-0x1000
.set IST_FIRST, 0x4000
.set IST_MIRROR, 0xc000

.set VECTOR_RESCHEDULE, 0xe2
.set LIBOS_HIGH, 0x7f80        # bits 32..63 of LIBOS_BASE

.macro SAVE_XMM
    sub $256, %rsp
    movups %xmm0, (%rsp)
    movups %xmm1, 16(%rsp)
    movups %xmm2, 32(%rsp)
    movups %xmm3, 48(%rsp)
    movups %xmm4, 64(%rsp)
    movups %xmm5, 80(%rsp)
    movups %xmm6, 96(%rsp)
    movups %xmm7, 112(%rsp)
    movups %xmm8, 128(%rsp)
    movups %xmm9, 144(%rsp)
    movups %xmm10, 160(%rsp)
    movups %xmm11, 176(%rsp)
    movups %xmm12, 192(%rsp)
    movups %xmm13, 208(%rsp)
    movups %xmm14, 224(%rsp)
    movups %xmm15, 240(%rsp)
    cld
.endm

.macro LOAD_XMM
    movups (%rsp), %xmm0
    movups 16(%rsp), %xmm1
    movups 32(%rsp), %xmm2
    movups 48(%rsp), %xmm3
    movups 64(%rsp), %xmm4
    movups 80(%rsp), %xmm5
    movups 96(%rsp), %xmm6
    movups 112(%rsp), %xmm7
    movups 128(%rsp), %xmm8
    movups 144(%rsp), %xmm9
    movups 160(%rsp), %xmm10
    movups 176(%rsp), %xmm11
    movups 192(%rsp), %xmm12
    movups 208(%rsp), %xmm13
    movups 224(%rsp), %xmm14
    movups 240(%rsp), %xmm15
    add $256, %rsp
.endm

.macro PUSH_REST
    push %r8
    push %r9
    push %r10
    push %r11
.endm

.macro POP_GENERAL
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rax
.endm

.text
.balign 64

# ---- ring 3: system calls ----

# From the SYSCALL stub by IRETQ: RSP = PerCpu, RCX = return address, R11 = flags, everything else the program's.
.globl hal_entry_system_call
hal_entry_system_call:
    wrgsbase %rsp
    mov %gs:PC_STACK_TOP, %rsp
hal_entry_system_call_on_stack:
    pushq $0
    pushq $0x2b
    pushq %gs:PC_USER_RSP
    push %r11
    pushq $0x33
    push %rcx
    pushq $0
    pushq $0
    jmp hal_system_call_common

# From a patched site: RCX = return address, GS base is ours, the stack is the program's.
.balign 64
.globl hal_entry_fast
hal_entry_fast:
    mov %rsp, %gs:PC_USER_RSP
hal_entry_fast_second:
    mov %gs:PC_STACK_TOP, %rsp
hal_entry_fast_on_stack:
    pushq $0
    pushq $0x2b
    pushq %gs:PC_USER_RSP
    pushq $0x202
    pushq $0x33
    push %rcx
    pushq $0
    pushq $1
hal_system_call_common:
    push %rax
    push %rdi
    push %rsi
    push %rdx
    push %rcx
    push %rax
    PUSH_REST
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    SAVE_XMM
    mov %rsp, %rdi
    call hal_system_call
    jmp hal_exit

hal_handle_pending:
    mov %rsp, %rdi
    call hal_pending
    # falls into hal_exit

# RSP = the UserContext. Nothing may be pending, and from here on an interrupt counts as the program's.
.globl hal_exit
hal_exit:
    cmpl $0, %gs:PC_PENDING
    jne hal_handle_pending
    cmpl $0, %gs:PC_GS_SET
    jne hal_exit_gs
    cmpl $0, CTX_FAST(%rsp)
    je hal_exit_full
    LOAD_XMM
    POP_GENERAL
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    mov 16+8(%rsp), %rcx
    mov 16+8+24(%rsp), %rsp
    # RCX was loaded from RIP: orig_rax, fast, mxcsr, rip, cs, rflags, rsp
    jmp *%rcx
hal_exit_gs:
    mov %gs:PC_GS, %rax
    wrgsbase %rax
hal_exit_full:
    LOAD_XMM
    POP_GENERAL
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    add $24, %rsp
    iretq
hal_exit_end:

# ---- ring 3: exceptions ----
# RSP = the vCPU's exception stack, RAX = vector (| 0x100: with error code) or, for a page fault, its address; the hardware's frame
# lies at the top of the ring-0 stack.

.balign 64
.globl hal_entry_page_fault
hal_entry_page_fault:
    mov %rbx, PC_RBX-0x4000(%rsp)
    mov %rcx, PC_RCX-0x4000(%rsp)
    lea -0x4000(%rsp), %rbx
    mov %rax, PC_FAULT(%rbx)
    mov $0x10e, %eax
    jmp 1f
.globl hal_entry_exception
hal_entry_exception:
    mov %rbx, PC_RBX-0x4000(%rsp)
    mov %rcx, PC_RCX-0x4000(%rsp)
    lea -0x4000(%rsp), %rbx
1:  lea 0x2000-40(%rbx), %rcx
    cmpl $LIBOS_HIGH, 4(%rcx)
    jae 2f
    mov PC_STACK_TOP(%rbx), %rsp
    jmp 3f
2:  mov 24(%rcx), %rsp
    sub $128, %rsp
    and $-16, %rsp
3:  pushq $0
    pushq $0x2b
    pushq 24(%rcx)
    pushq 16(%rcx)
    pushq $0x33
    pushq (%rcx)
    pushq $0
    pushq $0
    pushq $-1
    push %rdi
    push %rsi
    push %rdx
    pushq PC_RCX(%rbx)
    pushq PC_RAX(%rbx)
    PUSH_REST
    pushq PC_RBX(%rbx)
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    SAVE_XMM
    wrgsbase %rbx
    mov %rsp, %rdi
    mov %rax, %rsi
    mov PC_FAULT(%rbx), %rdx
    mov -8(%rcx), %rcx
hal_entry_exception_end:
    cmpl $LIBOS_HIGH, CTX_RIP+4(%rsp)
    jae 4f
    call hal_exception_user
    jmp hal_exit
4:  call hal_exception_kernel
    jmp hal_resume

# Back into the library OS, all registers.
hal_resume:
    LOAD_XMM
    POP_GENERAL
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    add $24, %rsp
    iretq

# ---- ring 3: interrupts ----

# The paging-based KVM sometimes delivers one interrupt twice or more, the later times before the first instruction of its ring-3
# handler. The ring-0 gate therefore turns IST 1 to a mirror of the area before it leaves, and the handler turns it back when it has
# left its stack. What arrives in between is such a twin (nothing to do, not even an end of interrupt), or, if its vector is another
# one, is counted for the handler that it interrupted. A third delivery finds this code instead and has overwritten the twin's frame:
# what that held is known, the start of hal_entry_interrupt, so that is where it goes on.
.globl hal_entry_interrupt_again
hal_entry_interrupt_again:
    cmp PC_IRQ_RAX-0x5000(%rsp), %rax
    je 1f
    incl PC_NESTED_COUNT-0xd000(%rsp)
1:  mov 0x3000-40-0x5000(%rsp), %rax
    sub PC_FRAME_INTERRUPT-0x5000(%rsp), %rax
    cmp $(hal_entry_interrupt_again_end - hal_entry_interrupt_again), %rax
    jb 2f
    mov PC_IRQ_RAX-0x5000(%rsp), %rax
    lea 0x3000-40-0x5000(%rsp), %rsp
    iretq
2:  incl PC_NESTED_COUNT-0xd000(%rsp)
    mov $VECTOR_RESCHEDULE, %eax
    lea -0x8000(%rsp), %rsp
    jmp hal_entry_interrupt
hal_entry_interrupt_again_end:

# RSP = the vCPU's interrupt stack, RAX = vector; the hardware's frame lies at the top of the IST stack. No other interrupt comes
# before the end of interrupt, which is signalled only when this stack is left.

.balign 64
.globl hal_entry_interrupt
hal_entry_interrupt:
    mov %rbx, PC_IRQ_RBX-0x5000(%rsp)
    mov %rcx, PC_IRQ_RCX-0x5000(%rsp)
    mov %rdx, PC_IRQ_RDX-0x5000(%rsp)
    lea -0x5000(%rsp), %rbx
    mov %rax, PC_IRQ_VECTOR(%rbx)
    lea 0x3000-40(%rbx), %rcx
    mov (%rcx), %rdx
    cmpl $LIBOS_HIGH, 4(%rcx)
    jb 5f
    # the SYSCALL stub?
    mov %rdx, %rax
    sub %rbx, %rax
    sub $0x5000, %rax
    cmp $16, %rax
    jb 2f
    testb $3, 8(%rcx)
    jz 4f
    lea hal_entry_system_call(%rip), %rax
    cmp %rax, %rdx
    jb 1f
    lea hal_entry_system_call_on_stack(%rip), %rax
    cmp %rax, %rdx
    jb 21f
1:  lea hal_entry_fast(%rip), %rax
    cmp %rax, %rdx
    je 22f
    lea hal_entry_fast_second(%rip), %rax
    cmp %rax, %rdx
    je 22f
    lea hal_exit(%rip), %rax
    cmp %rax, %rdx
    jb 6f
    lea hal_exit_end(%rip), %rax
    cmp %rax, %rdx
    jae 6f
    # leaving: the UserContext holds everything
    mov PC_STACK_TOP(%rbx), %rsp
    sub $CTX_SIZE, %rsp
    wrgsbase %rbx
    movw $IST_FIRST, TSS_IST1(%rbx)
    mov PC_IRQ_VECTOR(%rbx), %rdi
    xor %esi, %esi
    call hal_interrupt
    jmp hal_exit

2:  # in the stub: RSP is the program's only before its first instruction; SYSCALL has cleared some of the flags
    mov %r11, 16(%rcx)
    test %rax, %rax
    jz 22f
21: mov PC_USER_RSP(%rbx), %rax
    mov %rax, 24(%rcx)
    mov %r11, 16(%rcx)
22: mov PC_IRQ_RCX(%rbx), %rax
    sub $2, %rax
    mov %rax, (%rcx)
    # the program was about to execute this SYSCALL
5:  mov PC_STACK_TOP(%rbx), %rsp
    pushq $0
    pushq $0x2b
    pushq 24(%rcx)
    pushq 16(%rcx)
    pushq $0x33
    pushq (%rcx)
    pushq $0
    pushq $0
    pushq $-1
    push %rdi
    push %rsi
    pushq PC_IRQ_RDX(%rbx)
    pushq PC_IRQ_RCX(%rbx)
    pushq PC_IRQ_RAX(%rbx)
    PUSH_REST
    pushq PC_IRQ_RBX(%rbx)
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    SAVE_XMM
    wrgsbase %rbx
    movw $IST_FIRST, TSS_IST1(%rbx)
    mov PC_IRQ_VECTOR(%rbx), %rdi
    xor %esi, %esi
    call hal_interrupt
    jmp hal_exit

4:  # ring 0, halted: the frame of its INT 4 tells where the library OS goes on
    lea 0x2000-40(%rbx), %rcx
    mov (%rcx), %rdx
6:  # the library OS itself
    mov 24(%rcx), %rsp
    sub $128, %rsp
    and $-16, %rsp
    pushq $0
    pushq $0x2b
    pushq 24(%rcx)
    pushq 16(%rcx)
    pushq $0x33
    pushq (%rcx)
    pushq $0
    pushq $0
    pushq $-1
    push %rdi
    push %rsi
    pushq PC_IRQ_RDX(%rbx)
    pushq PC_IRQ_RCX(%rbx)
    pushq PC_IRQ_RAX(%rbx)
    PUSH_REST
    pushq PC_IRQ_RBX(%rbx)
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    SAVE_XMM
    wrgsbase %rbx
    movw $IST_FIRST, TSS_IST1(%rbx)
    mov PC_IRQ_VECTOR(%rbx), %rdi
    xor %esi, %esi
    lea hal_entry_page_fault(%rip), %rax
    cmp %rax, %rdx
    jb 7f
    lea hal_entry_exception_end(%rip), %rax
    cmp %rax, %rdx
    jae 7f
    mov $1, %esi
7:  call hal_interrupt
    jmp hal_resume

# ---- threads ----

.globl hal_switch
hal_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret

# First return of a new thread: R12 = entry (popped into place by the initial stack), R13 = argument; RSP = its UserContext.
.globl hal_thread_start
hal_thread_start:
    mov %r12, %rdi
    mov %r13, %rsi
    call hal_thread_begin
    jmp hal_exit

# ---- user memory ----

.globl hal_user_access_start
hal_user_access_start:
.globl hal_user_copy
hal_user_copy:
    mov %rdx, %rcx
    rep movsb
.globl hal_user_copy_fixup
hal_user_copy_fixup:
    mov %rcx, %rax
    ret
.globl hal_user_zero
hal_user_zero:
    mov %rsi, %rcx
    xor %eax, %eax
    rep stosb
    mov %rcx, %rax
    ret
.globl hal_user_copy_end
hal_user_copy_end:
.globl hal_user_strlen
hal_user_strlen:
    xor %eax, %eax
1:  cmp %rsi, %rax
    jae 2f
    cmpb $0, (%rdi,%rax)
    je 2f
    inc %rax
    jmp 1b
2:  ret
.globl hal_user_cas32
hal_user_cas32:
    mov (%rsi), %eax
    lock cmpxchgl %edx, (%rdi)
    mov %eax, (%rsi)
    xor %eax, %eax
    ret
.globl hal_user_load32
hal_user_load32:
    mov (%rdi), %eax
    mov %eax, (%rsi)
    xor %eax, %eax
    ret
.globl hal_user_access_end
hal_user_access_end:
    nop
.globl hal_user_other_fixup
hal_user_other_fixup:
    mov $-1, %rax
    ret

# ---- ring 0 ----
# Emulated at about a microsecond an instruction on a paging-based KVM: count them.

.macro GATE vector
hal_gate_\vector:
.if \vector == 14
    mov %rax, PC_RAX+48-0x2000(%rsp)
    mov %cr2, %rax
    lea PC_FRAME_FAULT+48-0x2000(%rsp), %rsp
.elseif \vector == 8 || (\vector >= 10 && \vector <= 13) || \vector == 17 || \vector == 21 || \vector == 29 || \vector == 30
    mov %rax, PC_RAX+48-0x2000(%rsp)
    mov $(\vector + 0x100), %eax
    lea PC_FRAME_EXCEPTION+48-0x2000(%rsp), %rsp
.else
    mov %rax, PC_RAX+40-0x2000(%rsp)
    mov $\vector, %eax
    lea PC_FRAME_EXCEPTION+40-0x2000(%rsp), %rsp
.endif
    iretq
.endm

.altmacro
.set v, 0
.rept 32
    GATE %v
    .set v, v + 1
.endr

.macro IRQ vector
hal_irq_\vector:
    movw $IST_MIRROR, TSS_IST1+40-0x3000(%rsp)
    mov %rax, PC_IRQ_RAX+40-0x3000(%rsp)
    mov $\vector, %eax
    lea PC_FRAME_INTERRUPT+40-0x3000(%rsp), %rsp
    iretq
.endm
.set v, 0xe0
.rept 32
    IRQ %v
    .set v, v + 1
.endr

# INT 4 from ring 3: RAX = one of the routines below.
.globl hal_gate_ring0_call
hal_gate_ring0_call:
    jmp *%rax
.globl hal_ring0_load_cr3
hal_ring0_load_cr3:
    mov %rdi, %cr3
    iretq
.globl hal_ring0_reload
hal_ring0_reload:
    mov %cr3, %rax
    mov %rax, %cr3
    iretq
# RDI = first page, RSI = pages, one after the other.
.globl hal_ring0_invalidate
hal_ring0_invalidate:
    invlpg (%rdi)
    add $0x1000, %rdi
    dec %rsi
    jnz hal_ring0_invalidate
    iretq
# RDI = table of RSI pages' addresses, see tables.rs. (From ring 3 each store would be an exit.)
.globl hal_ring0_unwatch
hal_ring0_unwatch:
    mov (%rdi), %rax
    movw $0, 2(%rax)
    add $8, %rdi
    dec %rsi
    jnz hal_ring0_unwatch
    iretq
# RDI = leaf, RCX = subleaf. (In ring 3 CPUID may be a fault.)
.globl hal_ring0_cpuid
hal_ring0_cpuid:
    mov %edi, %eax
    cpuid
    iretq
# RDI = the pending word; interrupts are off in an interrupt gate, so nothing can come between the look and the HLT.
.globl hal_ring0_halt
hal_ring0_halt:
    cmpl $0, (%rdi)
    jne 1f
    sti
    hlt
1:  iretq

.macro GATE_ADDRESS vector
    .quad hal_gate_\vector
.endm
.macro IRQ_ADDRESS vector
    .quad hal_irq_\vector
.endm
.section .rodata
.balign 8
.globl hal_exception_gates
hal_exception_gates:
.set v, 0
.rept 32
    GATE_ADDRESS %v
    .set v, v + 1
.endr
.globl hal_interrupt_gates
hal_interrupt_gates:
.set v, 0xe0
.rept 32
    IRQ_ADDRESS %v
    .set v, v + 1
.endr
.noaltmacro
.text
