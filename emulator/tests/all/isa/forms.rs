//! One instruction over many operands: a thread for each.

use nabla_emulator::Options;

use crate::common::{kernel, run_with};

/// Runs an instruction once for each set of up to four operands. They arrive in `%rd1..`, their low halves in `%r1..`,
/// quarters in `%rs1..`, and in `%p1..` whether they are not zero. The result is the one of `%rd0 %rs0 %r0 %p0` that the
/// text names first, zero-extended.
#[track_caller]
pub(crate) fn over(text: &str, operands: &[Vec<u64>]) -> Vec<u64> {
    let count = operands.first().map_or(0, Vec::len);
    let mut body = String::from(
        "    ld.param.b64 %rd30, [in];\n    ld.param.b64 %rd31, [out];\n    mov.u32 %r40, %tid.x;\n",
    );
    body += &format!(
        "    mad.wide.u32 %rd30, %r40, {}, %rd30;\n    mad.wide.u32 %rd31, %r40, 8, %rd31;\n",
        8 * count
    );
    for at in 0..count {
        let n = at + 1;
        body += &format!("    ld.global.b64 %rd{n}, [%rd30+{}];\n    cvt.u32.u64 %r{n}, %rd{n};\n", at * 8);
        body += &format!("    cvt.u16.u64 %rs{n}, %rd{n};\n    setp.ne.u64 %p{n}, %rd{n}, 0;\n");
    }
    body += &format!("    mov.b64 %rd0, 0;\n    {text}\n");
    let named = ["%rd0", "%rs0", "%r0", "%p0"].into_iter().filter_map(|name| Some((text.find(name)?, name)));
    match named.min().map_or("", |first| first.1) {
        "%rd0" => {}
        "%rs0" => body += "    cvt.u64.u16 %rd0, %rs0;\n",
        "%r0" => body += "    cvt.u64.u32 %rd0, %r0;\n",
        _ => body += "    selp.b64 %rd0, 1, 0, %p0;\n",
    }
    body += "    st.global.b64 [%rd31], %rd0;\n";
    let ptx = kernel(&body);
    let mut results = Vec::new();
    for part in operands.chunks(512) {
        let input: Vec<u32> = part.iter().flatten().flat_map(|x| [*x as u32, (*x >> 32) as u32]).collect();
        let threads = part.len() as u32;
        let (out, _) = run_with(&ptx, threads, 0, &input, 2 * part.len(), &Options::default())
            .unwrap_or_else(|fault| panic!("{text}: {fault}"));
        results.extend(out.chunks_exact(2).map(|pair| u64::from(pair[0]) | u64::from(pair[1]) << 32));
    }
    results
}

/// Checks an instruction of `N` operands against a formula.
#[track_caller]
pub(crate) fn check<const N: usize>(text: &str, operands: &[[u64; N]], formula: impl Fn([u64; N]) -> u64) {
    let got = over(text, &operands.iter().map(|set| set.to_vec()).collect::<Vec<_>>());
    for (set, got) in operands.iter().zip(got) {
        let expected = formula(*set);
        assert_eq!(got, expected, "{text} of {set:x?}: {got:#x} instead of {expected:#x}");
    }
}

/// Every combination of `N` values of a list.
pub(crate) fn all<const N: usize>(values: &[u64]) -> Vec<[u64; N]> {
    (0..values.len().pow(N as u32))
        .map(|at| std::array::from_fn(|i| values[at / values.len().pow(i as u32) % values.len()]))
        .collect()
}
