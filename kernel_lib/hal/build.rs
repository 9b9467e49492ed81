//! Compiles the vDSO: a shared object without dependencies, whose bytes `hal::vdso` carries.
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let folder = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join("vdso");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo"));
    println!("cargo:rerun-if-changed={}", folder.display());
    let (object, library) = (out.join("vdso.o"), out.join("vdso.so"));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut compile = Command::new(rustc);
    compile.arg(folder.join("vdso.rs")).args(["--emit=obj", "--edition=2021", "-Cpanic=abort", "-Copt-level=3", "-Crelocation-model=pic"]);
    run(compile.arg("-o").arg(&object));
    let mut link = Command::new("cc");
    link.arg(&object).args(["-shared", "-nostdlib", "-nostartfiles", "-s", "-Wl,-soname=linux-vdso.so.1", "-Wl,--hash-style=both"]);
    link.args(["-Wl,--build-id=none", "-Wl,-z,max-page-size=4096", "-Wl,--no-undefined"]);
    link.arg(format!("-Wl,-T,{}", folder.join("vdso.ld").display()));
    run(link.arg("-o").arg(&library));
}

fn run(command: &mut Command) {
    let status = command.status().expect("the compiler runs");
    assert!(status.success(), "the vDSO does not build: {command:?}");
}
