//! /proc/cpuinfo, from CPUID as the guest's programs see it.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;
use hal::cpu::cpuid;

/// Names of feature bits as Linux has them; "" where it has none.
struct Word {
    leaf: u32,
    subleaf: u32,
    register: usize,
    names: [&'static str; 32],
}

const WORDS: &[Word] = &[
    Word {
        leaf: 1,
        subleaf: 0,
        register: 3,
        names: [
            "fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "", "sep", "mtrr", "pge", "mca", "cmov", "pat", "pse36",
            "pn", "clflush", "", "dts", "acpi", "mmx", "fxsr", "sse", "sse2", "ss", "ht", "tm", "ia64", "pbe",
        ],
    },
    Word {
        leaf: 0x8000_0001,
        subleaf: 0,
        register: 3,
        names: [
            "", "", "", "", "", "", "", "", "", "", "", "syscall", "", "", "", "", "", "", "", "mp", "nx", "", "mmxext", "", "",
            "fxsr_opt", "pdpe1gb", "rdtscp", "", "lm", "3dnowext", "3dnow",
        ],
    },
    Word {
        leaf: 1,
        subleaf: 0,
        register: 2,
        names: [
            "pni",
            "pclmulqdq",
            "dtes64",
            "monitor",
            "ds_cpl",
            "vmx",
            "smx",
            "est",
            "tm2",
            "ssse3",
            "cid",
            "sdbg",
            "fma",
            "cx16",
            "xtpr",
            "pdcm",
            "",
            "pcid",
            "dca",
            "sse4_1",
            "sse4_2",
            "x2apic",
            "movbe",
            "popcnt",
            "tsc_deadline_timer",
            "aes",
            "xsave",
            "",
            "avx",
            "f16c",
            "rdrand",
            "hypervisor",
        ],
    },
    Word {
        leaf: 0x8000_0001,
        subleaf: 0,
        register: 2,
        names: [
            "lahf_lm",
            "cmp_legacy",
            "svm",
            "extapic",
            "cr8_legacy",
            "abm",
            "sse4a",
            "misalignsse",
            "3dnowprefetch",
            "osvw",
            "ibs",
            "xop",
            "skinit",
            "wdt",
            "",
            "lwp",
            "fma4",
            "tce",
            "",
            "nodeid_msr",
            "",
            "tbm",
            "topoext",
            "perfctr_core",
            "perfctr_nb",
            "",
            "bpext",
            "ptsc",
            "perfctr_llc",
            "mwaitx",
            "",
            "",
        ],
    },
    Word {
        leaf: 7,
        subleaf: 0,
        register: 1,
        names: [
            "fsgsbase",
            "tsc_adjust",
            "sgx",
            "bmi1",
            "hle",
            "avx2",
            "",
            "smep",
            "bmi2",
            "erms",
            "invpcid",
            "rtm",
            "cqm",
            "",
            "mpx",
            "rdt_a",
            "avx512f",
            "avx512dq",
            "rdseed",
            "adx",
            "smap",
            "avx512ifma",
            "",
            "clflushopt",
            "clwb",
            "intel_pt",
            "avx512pf",
            "avx512er",
            "avx512cd",
            "sha_ni",
            "avx512bw",
            "avx512vl",
        ],
    },
    Word {
        leaf: 7,
        subleaf: 0,
        register: 2,
        names: [
            "",
            "avx512vbmi",
            "umip",
            "pku",
            "ospke",
            "waitpkg",
            "avx512_vbmi2",
            "",
            "gfni",
            "vaes",
            "vpclmulqdq",
            "avx512_vnni",
            "avx512_bitalg",
            "tme",
            "avx512_vpopcntdq",
            "",
            "la57",
            "",
            "",
            "",
            "",
            "",
            "rdpid",
            "",
            "bus_lock_detect",
            "cldemote",
            "",
            "movdiri",
            "movdir64b",
            "enqcmd",
            "",
            "",
        ],
    },
    Word {
        leaf: 7,
        subleaf: 0,
        register: 3,
        names: [
            "",
            "",
            "avx512_4vnniw",
            "avx512_4fmaps",
            "fsrm",
            "",
            "",
            "",
            "avx512_vp2intersect",
            "",
            "md_clear",
            "",
            "",
            "",
            "serialize",
            "",
            "tsxldtrk",
            "",
            "pconfig",
            "arch_lbr",
            "ibt",
            "",
            "amx_bf16",
            "avx512_fp16",
            "amx_tile",
            "amx_int8",
            "",
            "",
            "flush_l1d",
            "arch_capabilities",
            "",
            "",
        ],
    },
    Word {
        leaf: 13,
        subleaf: 1,
        register: 0,
        names: [
            "xsaveopt", "xsavec", "xgetbv1", "xsaves", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "",
            "", "", "", "", "", "", "",
        ],
    },
];

fn flags() -> String {
    let (basic, extended) = (cpuid(0, 0)[0], cpuid(0x8000_0000, 0)[0]);
    let mut text = String::new();
    for word in WORDS {
        let highest = if word.leaf >= 0x8000_0000 { extended } else { basic };
        if word.leaf > highest {
            continue;
        }
        let bits = cpuid(word.leaf, word.subleaf)[word.register];
        for (bit, name) in word.names.iter().enumerate() {
            if bits >> bit & 1 != 0 && !name.is_empty() {
                let _ = write!(text, "{}{name}", if text.is_empty() { "" } else { " " });
            }
        }
    }
    text
}

fn bytes_of(registers: &[u32]) -> String {
    let bytes = registers.iter().flat_map(|register| register.to_le_bytes());
    let text: String = bytes.take_while(|&byte| byte != 0).map(char::from).collect();
    String::from(text.trim())
}

fn model_name() -> String {
    if cpuid(0x8000_0000, 0)[0] < 0x8000_0004 {
        return String::from("unknown");
    }
    let words: alloc::vec::Vec<u32> = (0x8000_0002..=0x8000_0004).flat_map(|leaf| cpuid(leaf, 0)).collect();
    bytes_of(&words)
}

pub fn text() -> String {
    let first = cpuid(0, 0);
    let vendor = bytes_of(&[first[1], first[3], first[2]]);
    let signature = cpuid(1, 0)[0];
    let (family, model) = (signature >> 8 & 0xf, signature >> 4 & 0xf);
    let shown_family = if family == 0xf { family + (signature >> 20 & 0xff) } else { family };
    let shown_model = if family == 6 || family == 0xf { model | signature >> 12 & 0xf0 } else { model };
    let (name, flags) = (model_name(), flags());
    let khz = hal::time::tsc_hz() / 1000;
    let count = hal::cpu::count().max(1);
    let mut text = String::new();
    for cpu in 0..count {
        let mhz = format!("{}.{:03}", khz / 1000, khz % 1000);
        let _ = write!(
            text,
            "processor\t: {cpu}\nvendor_id\t: {vendor}\ncpu family\t: {shown_family}\nmodel\t\t: {shown_model}\nmodel name\t: {name}\n\
             stepping\t: {}\nmicrocode\t: 0x1\ncpu MHz\t\t: {mhz}\ncache size\t: 32768 KB\nphysical id\t: 0\nsiblings\t: {count}\n\
             core id\t\t: {cpu}\ncpu cores\t: {count}\napicid\t\t: {cpu}\ninitial apicid\t: {cpu}\nfpu\t\t: yes\nfpu_exception\t: yes\n\
             cpuid level\t: {}\nwp\t\t: yes\nflags\t\t: {flags}\nbugs\t\t:\nbogomips\t: {}.{:02}\nclflush size\t: 64\ncache_alignment\t: 64\n\
             address sizes\t: 46 bits physical, 48 bits virtual\npower management:\n\n",
            signature & 0xf,
            first[0],
            khz * 2 / 1000,
            khz * 2 / 10 % 100,
        );
    }
    text
}
