//! What a variant consists of: instruction counts of its PTX, and its machine code.

use std::{collections::BTreeMap, fs, io, process::Command};

use super::{cuda_tools::CudaTool, launch_bounds::without_comments};

/// Counts instructions by opcode, types and other modifiers included: `mma.sync.aligned.m16n8k16....`.
pub fn ptx_opcodes(ptx: &str) -> BTreeMap<String, usize> {
    let code: String = without_comments(ptx)
        .lines()
        .filter(|line| !is_line_directive(line.trim_start()))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut counts = BTreeMap::new();
    for statement in code.split(';') {
        if let Some(opcode) = opcode_of(statement) {
            *counts.entry(opcode.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Tells directives that end with their line from those that end with `;`.
fn is_line_directive(line: &str) -> bool {
    [".loc", ".file", ".section", ".version", ".target", ".address_size", ".maxntid", ".minnctapersm"]
        .iter()
        .any(|directive| line.starts_with(directive))
}

/// Finds the opcode of a statement, after braces of blocks, labels and a predicate.
fn opcode_of(statement: &str) -> Option<&str> {
    let mut rest = statement.trim_start();
    // The head of an entry ends with the brace that opens its body.
    if let Some(head) = rest.find(".entry").filter(|_| rest.starts_with('.')) {
        rest = rest[head..].find('{').map_or("", |body| &rest[head + body..]);
    }
    loop {
        rest = rest.trim_start();
        if let Some(inner) = rest.strip_prefix(['{', '}']) {
            rest = inner;
            continue;
        }
        let word = rest.split(|c: char| c.is_whitespace()).next().unwrap_or_default();
        match word.strip_suffix(':') {
            Some(_) => rest = &rest[word.len()..],
            None if word.starts_with('@') => rest = &rest[word.len()..],
            None if word.is_empty() || word.starts_with('.') => return None,
            None => return Some(word),
        }
    }
}

/// Tells whether PTX declares or touches local memory.
pub fn uses_local_memory(ptx: &str) -> bool {
    without_comments(ptx).contains(".local")
}

/// Disassembles machine code.
///
/// # Errors
/// When the disassembler does not run or refuses it.
pub fn disassemble(nvdisasm: &CudaTool, cubin: &[u8]) -> io::Result<String> {
    let scratch = tempfile::tempdir()?;
    let path = scratch.path().join("kernel.cubin");
    fs::write(&path, cubin)?;
    let output = Command::new(&nvdisasm.program).arg("--print-code").arg(&path).output()?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(format!("nvdisasm ended with {}: {message}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Counts machine instructions by opcode with its modifiers: `HMMA.16816.F32.BF16`.
pub fn sass_opcodes(sass: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for word in sass.lines().filter_map(machine_opcode) {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    counts
}

/// Finds the opcode of a line of machine code: `        /*0010*/              @!P0 LDGSTS.E.128 [R1], [R2] ;`.
fn machine_opcode(line: &str) -> Option<&str> {
    let (address, rest) = line.trim_start().strip_prefix("/*")?.split_once("*/")?;
    if !address.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut words = rest.split_whitespace().filter(|word| !word.starts_with(['@', '{', '}']));
    let word = words.next().filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()))?;
    Some(word.trim_end_matches(';'))
}

/// Counts the machine instructions of the loop with the most matrix products, of all its branches; `None` without one.
///
/// A loop is what lies between a label and the last branch back to it; of loops within each other with the same products
/// the innermost counts.
pub fn hot_loop(sass: &str) -> Option<BTreeMap<String, usize>> {
    let lines: Vec<&str> = sass.lines().collect();
    let mut labels = BTreeMap::new();
    let mut hottest: Option<(usize, std::cmp::Reverse<usize>, BTreeMap<String, usize>)> = None;
    for (at, line) in lines.iter().enumerate() {
        if let Some(label) = line.trim().strip_suffix(':') {
            labels.insert(label, at);
        }
        // `@!P0 BRA `(.L_x_5) ;`
        let Some(target) = line.split_once("BRA").and_then(|(_, rest)| rest.split_once("`(")) else {
            continue;
        };
        let Some(&start) = target.1.split_once(')').and_then(|(label, _)| labels.get(label)) else {
            continue;
        };
        let counts = sass_opcodes(&lines[start..=at].join("\n"));
        let products: usize =
            counts.iter().filter(|(name, _)| is_product(name)).map(|(_, count)| count).sum();
        let candidate = (products, std::cmp::Reverse(at - start), counts);
        if products > 0 && hottest.as_ref().is_none_or(|best| (best.0, best.1) < (candidate.0, candidate.1)) {
            hottest = Some(candidate);
        }
    }
    hottest.map(|(_, _, counts)| counts)
}

fn is_product(opcode: &str) -> bool {
    ["HMMA", "HGMMA"].contains(&opcode.split('.').next().unwrap_or_default())
}

/// Adds counts up by the part of an opcode before the first dot, most frequent first.
pub fn by_family(opcodes: &BTreeMap<String, usize>) -> Vec<(String, usize)> {
    let mut families = BTreeMap::<&str, usize>::new();
    for (opcode, count) in opcodes {
        *families.entry(opcode.split('.').next().unwrap_or(opcode)).or_default() += count;
    }
    let mut families: Vec<_> = families.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    families.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ptx_instructions_are_counted_by_opcode() {
        let ptx = "\
.version 7.0
.target sm_80
.extern .shared .align 1024 .b8 dsmem[];
.visible .entry fa(
	.param .u64 fa_param_0
)
.maxntid 128,1,1
{
	.reg .b32 	%r<9>;
	.loc 1 2 3
// %bb.0:
	mov.u32 %r1, %tid.x; // mov.u32 no;
$L__BB0_1:
	{ .reg .pred p; setp.eq.u32 p, %r1, 0; @p ex2.approx.ftz.f32 %r2, %r3; }
	@%p1 bra $L__BB0_1;
	mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r1,%r2}, {%r3}, {%r4}, {%r5};
	mov.u32 %r2, %r1;
	ret;
}
";
        let expected = [
            ("bra", 1),
            ("ex2.approx.ftz.f32", 1),
            ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", 1),
            ("mov.u32", 2),
            ("ret", 1),
            ("setp.eq.u32", 1),
        ];
        let counts = ptx_opcodes(ptx);
        assert_eq!(counts.iter().map(|(name, &n)| (name.as_str(), n)).collect::<Vec<_>>(), expected);
        assert_eq!(by_family(&counts)[0], ("mov".to_owned(), 2));
        assert!(!uses_local_memory(ptx));
        assert!(uses_local_memory(&ptx.replace(".reg .b32", ".local .align 4 .b8 depot[8];")));
    }

    #[test]
    fn machine_instructions_are_counted_by_opcode() {
        let sass = "\
	.section	.text.fa,\"ax\",@progbits
fa:
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;
        /*0010*/               @!P0 LDGSTS.E.128 [R1], [R2.64] ;
        /*0020*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0030*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0040*/                   EXIT ;
.L_x_1:
";
        let counts = sass_opcodes(sass);
        assert_eq!((counts["HMMA.16816.F32.BF16"], counts["LDGSTS.E.128"], counts["EXIT"]), (2, 1, 1));
        assert_eq!(counts.len(), 4);
        assert_eq!(hot_loop(sass), None, "it has no loop");
    }

    #[test]
    fn the_hot_loop_is_the_innermost_with_the_most_matrix_products() {
        let sass = "\
.L_x_0:
        /*0000*/                   MOV R1, R2 ;
.L_x_1:
        /*0010*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], R24 ;
.L_x_2:
        /*0020*/                   FADD R1, R2, R3 ;
        /*0030*/              @!P0 BRA `(.L_x_2) ;
        /*0040*/               @P1 BRA `(.L_x_3) ;
        /*0050*/               @P1 BRA `(.L_x_1) ;
.L_x_3:
        /*0060*/                   BRA `(.L_x_0) ;
";
        let hot = hot_loop(sass).unwrap();
        assert_eq!(hot.values().sum::<usize>(), 5, "{hot:?}");
        assert_eq!((hot["HGMMA.64x64x16.F32.BF16"], hot["BRA"], hot.get("MOV")), (1, 3, None));
    }
}
