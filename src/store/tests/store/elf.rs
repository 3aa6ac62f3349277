//! Programs of tests with one function changed: a link gone wrong that no C shim can make, since a preloaded library
//! does not come before what the program itself defines.

use std::ops::Range;
use std::path::Path;

/// "Return 0" in this machine's code; none where nobody has written it down.
pub const RETURN_ZERO: Option<&[u8]> = if cfg!(target_arch = "x86_64") {
    // xor eax, eax; ret
    Some(&[0x31, 0xc0, 0xc3])
} else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
    // mov w0, #0; ret
    Some(&[0x00, 0x00, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6])
} else {
    None
};

/// Has the function `name` of the ELF program at `path` begin with `code`.
pub fn overwrite(path: &Path, name: &str, code: &[u8]) {
    let mut program = std::fs::read(path).unwrap();
    let function = function(&program, name).unwrap_or_else(|| panic!("{} has no {name}", path.display()));
    assert!(function.len() >= code.len(), "{name} is shorter than what is to be put into it");
    program[function][..code.len()].copy_from_slice(code);
    std::fs::write(path, program).unwrap();
}

/// The bytes of a function that the program defines, by its symbol tables (System V gABI, chapter 4; 64 bits, little
/// endian).
fn function(program: &[u8], name: &str) -> Option<Range<usize>> {
    const SYMBOL_TABLE: usize = 2;
    const DYNAMIC_SYMBOLS: usize = 11;
    const SYMBOL_BYTES: usize = 24;
    const FUNCTION: usize = 2;
    assert!(program.starts_with(b"\x7fELF\x02\x01"), "not an ELF file of 64 bits, little endian");
    let read = |at: usize, bytes: usize| {
        program[at..at + bytes].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let (table, entry, count) = (read(0x28, 8), read(0x3a, 2), read(0x3c, 2));
    let section = |index: usize| table + entry * index;
    let (address, offset) = (|at| read(at + 0x10, 8), |at| read(at + 0x18, 8));
    // A stripped program still has its dynamic symbols.
    let tables =
        (0..count).map(section).filter(|at| [SYMBOL_TABLE, DYNAMIC_SYMBOLS].contains(&read(at + 4, 4)));
    let mut symbols = tables.flat_map(|at| {
        let names = offset(section(read(at + 0x28, 4)));
        let (start, bytes) = (offset(at), read(at + 0x20, 8));
        (start..start + bytes).step_by(SYMBOL_BYTES).map(move |symbol| (symbol, names))
    });
    symbols.find_map(|(symbol, names)| {
        let named = program[names + read(symbol, 4)..].split(|byte| *byte == 0).next()? == name.as_bytes();
        let (kind, home) = (read(symbol + 4, 1) & 0xf, read(symbol + 6, 2));
        // Section 0: called here, defined elsewhere.
        (named && kind == FUNCTION && home != 0).then(|| {
            let start = read(symbol + 8, 8) - address(section(home)) + offset(section(home));
            start..start + read(symbol + 16, 8)
        })
    })
}
