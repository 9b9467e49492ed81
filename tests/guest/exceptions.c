/* Exceptions and machine state: sigaction(2) for SIGSEGV, SIGILL, SIGFPE and SIGTRAP, the registers and the XSAVE state in the frame. */
#include "guest.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <ucontext.h>

static volatile int hits;

static void note(int number)
{
	(void)number;
	hits++;
}

static void change_registers(int number, siginfo_t *info, void *context)
{
	ucontext_t *user = context;
	(void)info;
	say("%s at the expected instruction: %s", signal_name(number),
	    *(unsigned char *)user->uc_mcontext.gregs[REG_RIP] == 0x48 ? "yes" : "no");
	user->uc_mcontext.gregs[REG_RIP] += 3; /* skip mov (%rax), %rbx */
	user->uc_mcontext.gregs[REG_RBX] = 4711;
}

CASE(handler_changes_registers)
{
	long result;
	on_siginfo(SIGSEGV, change_registers, 0);
	asm volatile("mov $8, %%eax; .byte 0x48, 0x8b, 0x18" : "=b"(result) : : "rax", "memory");
	num("rbx from the handler", result);
}

static void sigill_info(int number, siginfo_t *info, void *context)
{
	ucontext_t *user = context;
	say("%s code %d, si_addr is rip: %s", signal_name(number), info->si_code,
	    (uintptr_t)info->si_addr == (uintptr_t)user->uc_mcontext.gregs[REG_RIP] ? "yes" : "no");
	user->uc_mcontext.gregs[REG_RIP] += number == SIGTRAP ? 0 : 2;
}

static void sigtrap_info(int number, siginfo_t *info, void *context)
{
	(void)context;
	say("%s code %d", signal_name(number), info->si_code);
}

CASE(exceptions)
{
	on_siginfo(SIGILL, sigill_info, 0);
	on_siginfo(SIGFPE, sigill_info, 0);
	on_siginfo(SIGTRAP, sigtrap_info, 0);
	asm volatile("ud2");
	long quotient;
	asm volatile("xor %%edx, %%edx; mov $1, %%eax; xor %%ecx, %%ecx; div %%ecx" : "=a"(quotient) : : "rcx", "rdx");
	asm volatile("int3");
	say("after int3");
	pid_t child = must(fork());
	if (child == 0) {
		asm volatile("hlt");
		_exit(0);
	}
	status("hlt", reap(child));
	child = must(fork());
	if (child == 0) {
		asm volatile("outb %al, $0x80");
		_exit(0);
	}
	status("outb", reap(child));
}

static void single_step(int number, siginfo_t *info, void *context)
{
	ucontext_t *user = context;
	(void)number;
	if (info->si_code == TRAP_TRACE)
		hits++;
	if (hits == 5)
		user->uc_mcontext.gregs[REG_EFL] &= ~0x100L;
}

CASE(trap_flag)
{
	on_siginfo(SIGTRAP, single_step, 0);
	asm volatile("pushf; orl $0x100, (%%rsp); popf; nop; nop; nop; nop; nop; nop; nop; nop" : : : "memory", "cc");
	num("steps", hits);
}

CASE(fault_with_signal_blocked_kills)
{
	pid_t child = must(fork());
	if (child == 0) {
		on_signal(SIGSEGV, note, 0);
		block_signal(SIGSEGV);
		*(volatile int *)8 = 0;
		_exit(0);
	}
	status("blocked", reap(child));
	child = must(fork());
	if (child == 0) {
		signal(SIGSEGV, SIG_IGN);
		*(volatile int *)8 = 0;
		_exit(0);
	}
	status("ignored", reap(child));
}

CASE(bad_stack_for_handler_kills)
{
	pid_t child = must(fork());
	if (child == 0) {
		on_signal(SIGUSR1, note, 0);
		asm volatile("mov %0, %%rsp; mov $39, %%eax; syscall; mov %%eax, %%edi; mov $10, %%esi; mov $62, %%eax; syscall; ud2"
			     : : "r"(4096L) : "memory");
		_exit(0);
	}
	status("child", reap(child));
}

__attribute__((target("avx"))) static void spoil_vectors(int number)
{
	(void)number;
	__m256i ones = _mm256_set1_epi32(-1);
	asm volatile("vmovdqa %0, %%ymm0; vmovdqa %0, %%ymm5; vmovdqa %0, %%ymm15" : : "m"(ones) : "xmm0", "xmm5", "xmm15");
	hits++;
}

CASE(avx_state_survives_handlers)
{
	/* The signal frame carries the XSAVE state: upper halves too. */
	if (!__builtin_cpu_supports("avx")) {
		say("0 wrong");
		return;
	}
	on_signal(SIGUSR1, spoil_vectors, 0);
	uint64_t in[4] = {1, 2, 3, 4}, out0[4], out5[4], out15[4];
	long result;
	asm volatile("vmovdqu %[in], %%ymm0; vmovdqu %[in], %%ymm5; vmovdqu %[in], %%ymm15; syscall\n"
		     "vmovdqu %%ymm0, %[out0]; vmovdqu %%ymm5, %[out5]; vmovdqu %%ymm15, %[out15]"
		     : "=a"(result), [out0] "=m"(out0), [out5] "=m"(out5), [out15] "=m"(out15)
		     : "0"((long)SYS_tkill), "D"((long)gettid()), "S"((long)SIGUSR1), [in] "m"(in)
		     : "rcx", "r11", "memory", "xmm0", "xmm5", "xmm15");
	int wrong = 0;
	for (int lane = 0; lane < 4; lane++)
		wrong += (out0[lane] != in[lane]) + (out5[lane] != in[lane]) + (out15[lane] != in[lane]);
	say("%d wrong", wrong);
}

__attribute__((target("avx"))) static int keep_vectors(int seed)
{
	/* Fills every ymm register, spins and sleeps in turn, and counts the registers that changed. */
	uint64_t in[4], out[16][4];
	int wrong = 0;
	for (int lane = 0; lane < 4; lane++)
		in[lane] = seed * 1000 + lane;
	for (int round = 0; round < 20; round++) {
		long spins = round % 2 ? 2000000 : 10;
		struct timespec pause = {0, 100000};
		long number = SYS_nanosleep;
		asm volatile("vmovdqu %[in], %%ymm0\n vmovdqu %%ymm0, %%ymm1\n vmovdqu %%ymm0, %%ymm2\n vmovdqu %%ymm0, %%ymm3\n"
			     "vmovdqu %%ymm0, %%ymm4\n vmovdqu %%ymm0, %%ymm6\n vmovdqu %%ymm0, %%ymm8\n vmovdqu %%ymm0, %%ymm12\n"
			     "1: dec %[spins]\n jnz 1b\n syscall\n"
			     "vmovdqu %%ymm0, 0(%[out])\n vmovdqu %%ymm1, 32(%[out])\n vmovdqu %%ymm2, 64(%[out])\n vmovdqu %%ymm3, 96(%[out])\n"
			     "vmovdqu %%ymm4, 128(%[out])\n vmovdqu %%ymm6, 160(%[out])\n vmovdqu %%ymm8, 192(%[out])\n vmovdqu %%ymm12, 224(%[out])\n"
			     : [spins] "+r"(spins), "+a"(number)
			     : [in] "m"(in), [out] "r"(out), "D"(&pause), "S"(0L)
			     : "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm6", "xmm8", "xmm12");
		for (int row = 0; row < 8; row++)
			for (int lane = 0; lane < 4; lane++)
				wrong += out[row][lane] != in[lane];
	}
	return wrong;
}

static void *keep_in_thread(void *argument) { return (void *)(intptr_t)keep_vectors((intptr_t)argument); }

CASE(avx_state_survives_switches)
{
	if (!__builtin_cpu_supports("avx")) {
		say("0 wrong");
		return;
	}
	pthread_t threads[4];
	intptr_t wrong = 0;
	for (intptr_t index = 0; index < 4; index++)
		pthread_create(&threads[index], NULL, keep_in_thread, (void *)(index + 1));
	pid_t child = must(fork());
	if (child == 0)
		_exit(keep_vectors(9) != 0);
	for (int index = 0; index < 4; index++) {
		void *result;
		pthread_join(threads[index], &result);
		wrong += (intptr_t)result;
	}
	say("%ld wrong", (long)wrong);
	status("process", reap(child));
}

CASE(avx512_state_survives_switches)
{
	if (!__builtin_cpu_supports("avx512f")) {
		say("0 wrong");
		return;
	}
	int wrong = 0;
	pid_t child = must(fork());
	uint64_t in[8], out[8], mask_in = child ? 0x5555 : 0xaaaa, mask_out;
	for (int lane = 0; lane < 8; lane++)
		in[lane] = (child ? 100 : 200) + lane;
	for (int round = 0; round < 100; round++) {
		long number = SYS_sched_yield;
		asm volatile("vmovdqu64 %[in], %%zmm17\n kmovw %k[mask], %%k3\n syscall\n vmovdqu64 %%zmm17, %[out]\n kmovw %%k3, %k[mask_out]"
			     : "+a"(number), [out] "=m"(out), [mask_out] "=r"(mask_out)
			     : [in] "m"(in), [mask] "r"(mask_in)
			     : "rcx", "r11", "memory");
		wrong += mask_out != mask_in;
		for (int lane = 0; lane < 8; lane++)
			wrong += out[lane] != in[lane];
	}
	if (child == 0)
		_exit(wrong != 0);
	wrong += reap(child);
	say("%d wrong", wrong);
}

CASE(mxcsr_and_x87_are_per_thread)
{
	unsigned int csr = _mm_getcsr();
	_mm_setcsr(csr | 0x6000);
	pid_t child = must(fork());
	if (child == 0)
		_exit((_mm_getcsr() & 0x6000) == 0x6000 ? 1 : 2);
	nap(5);
	yes("rounding mode kept", (_mm_getcsr() & 0x6000) == 0x6000);
	_mm_setcsr(csr);
	status("inherited", reap(child));
	long double value = 1.0L;
	for (int turn = 0; turn < 64; turn++) {
		value = value / 3.0L * 3.0L + 1.0L;
		sched_yield();
	}
	yes("x87 arithmetic", value > 64.9L && value < 65.1L);
}

static volatile int steps_left;
static void trap_flag_handler(int number, siginfo_t *info, void *context)
{
	(void)number, (void)info;
	if (--steps_left <= 0)
		((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~0x100L;
}

static uint32_t handler_mxcsr;
static uint16_t handler_control;
static uint64_t handler_xmm[2];
static void note_state(int number)
{
	(void)number;
	asm volatile("stmxcsr %0; fnstcw %1; movdqu %%xmm7, %2" : "=m"(handler_mxcsr), "=m"(handler_control), "=m"(handler_xmm));
}

/* Rounding modes and registers of what was interrupted are not the handler's, and come back behind it. */
CASE(handler_starts_with_fresh_floating_point)
{
	uint32_t mxcsr = 0x7f80;
	uint16_t control = 0x0c7f;
	uint64_t xmm[2];
	on_signal(SIGUSR1, note_state, 0);
	asm volatile("ldmxcsr %0; fldcw %1" : : "m"(mxcsr), "m"(control));
	asm volatile("pcmpeqd %%xmm7, %%xmm7; syscall; movdqu %%xmm7, %0"
		     : "=m"(xmm)
		     : "a"(SYS_kill), "D"(getpid()), "S"(SIGUSR1)
		     : "rcx", "r11", "memory", "xmm7");
	asm volatile("stmxcsr %0; fnstcw %1; fninit" : "=m"(mxcsr), "=m"(control));
	say("handler: mxcsr %x, control word %x, xmm7 %lx %lx", handler_mxcsr, handler_control, handler_xmm[0], handler_xmm[1]);
	say("behind it: mxcsr %x, control word %x, xmm7 %lx %lx", mxcsr, control, xmm[0], xmm[1]);
	mxcsr = 0x1f80;
	asm volatile("ldmxcsr %0" : : "m"(mxcsr));
}

CASE(own_trap_flag_through_calls)
{
	/* A program that steps itself gets through every kind of system call. */
	on_siginfo(SIGTRAP, trap_flag_handler, 0);
	for (int round = 0; round < 5; round++) {
		long raw;
		steps_left = 20;
		__asm__ volatile("pushf; orl $0x100, (%%rsp); popf; mov $39, %%eax; syscall; nop; nop" : "=a"(raw) : : "rcx", "r11", "memory", "cc");
		while (steps_left > 0)
			__asm__ volatile("nop");
		yes("SYSCALL", raw == getpid());
		steps_left = 60;
		__asm__ volatile("pushf; orl $0x100, (%%rsp); popf" : : : "memory", "cc");
		pid_t parent = getppid();
		while (steps_left > 0)
			__asm__ volatile("nop");
		yes("C library", parent == getppid());
	}
}

CASE(nested_task_flag)
{
	for (int round = 0; round < 5; round++) {
		long raw;
		__asm__ volatile("pushf; orl $0x4000, (%%rsp); popf; mov $39, %%eax; syscall; pushf; andl $~0x4000, (%%rsp); popf"
		                 : "=a"(raw) : : "rcx", "r11", "memory", "cc");
		yes("SYSCALL", raw == getpid());
		__asm__ volatile("pushf; orl $0x4000, (%%rsp); popf" : : : "memory", "cc");
		pid_t parent = getppid();
		kill(getpid(), 0);
		__asm__ volatile("pushf; andl $~0x4000, (%%rsp); popf" : : : "memory", "cc");
		yes("C library", parent == getppid());
	}
}
