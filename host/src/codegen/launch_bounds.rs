//! Launch bounds: what rustc cannot say about an entry, written into its PTX.
//!
//! Without `.maxntid` the assembler must assume 1024 threads and caps a kernel at 64 registers; without both
//! directives it ignores `setmaxnreg`.

/// Threads and blocks that an entry is launched with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchBounds {
    /// Threads of a block, all along x.
    pub threads: u32,
    /// Blocks that a multiprocessor must be able to hold at once.
    pub min_blocks_per_sm: u32,
    /// Blocks of a cluster, along x; 1 is none. A kernel that has its cluster written in it is launched like any.
    pub cluster: u32,
}

/// PTX whose entry cannot be given bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchBoundsError {
    /// The symbol is not there.
    #[error("expected an entry `{entry}`, got {}", names(found))]
    NoEntry {
        /// The symbol looked for.
        entry: String,
        /// The entries that are there.
        found: Vec<String>,
    },
    /// More than one entry: the others would have no bounds.
    #[error("expected one entry, got {}; give each kernel a compilation of its own", names(found))]
    SeveralEntries {
        /// The entries that are there.
        found: Vec<String>,
    },
    /// Text that is not the head of an entry.
    #[error("entry `{entry}`: expected parameters and a body, got `{got}`")]
    BrokenHead {
        /// The entry.
        entry: String,
        /// Where the head stops being one.
        got: String,
    },
    /// Bounds are there already.
    #[error("entry `{entry}` has launch bounds already: `{got}`")]
    AlreadyBound {
        /// The entry.
        entry: String,
        /// The directives found.
        got: String,
    },
}

fn names(found: &[String]) -> String {
    if found.is_empty() { "none".to_owned() } else { found.join(", ") }
}

impl LaunchBounds {
    /// Adds the bounds to the head of the one entry of a PTX module.
    ///
    /// # Errors
    /// When there is no such entry, another one as well, or its head is not `.entry name ( ... ) {`.
    pub fn add_to(self, ptx: &str, entry: &str) -> Result<String, LaunchBoundsError> {
        let code = without_comments(ptx);
        let heads: Vec<(&str, usize)> = code
            .match_indices(".entry")
            .map(|(at, directive)| {
                let rest = code[at + directive.len()..].trim_start();
                let end =
                    rest.find(|c: char| c == '(' || c == '{' || c.is_whitespace()).unwrap_or(rest.len());
                (&rest[..end], code.len() - rest.len() + end)
            })
            .collect();
        let found = || heads.iter().map(|(name, _)| (*name).to_owned()).collect();
        let Some(&(_, after_name)) = heads.iter().find(|(name, _)| *name == entry) else {
            return Err(LaunchBoundsError::NoEntry { entry: entry.to_owned(), found: found() });
        };
        if heads.len() > 1 {
            return Err(LaunchBoundsError::SeveralEntries { found: found() });
        }
        let broken = |at: usize| LaunchBoundsError::BrokenHead {
            entry: entry.to_owned(),
            got: code[at..].trim_start().chars().take(40).collect::<String>().replace('\n', " "),
        };
        let opening = after_name + spaces(&code[after_name..]);
        // The list of parameters may be left out altogether.
        let after_parameters = if code[opening..].starts_with('(') {
            opening + code[opening..].find(')').ok_or_else(|| broken(opening))? + 1
        } else {
            opening
        };
        let body = after_parameters + code[after_parameters..].find('{').ok_or_else(|| broken(opening))?;
        let between = code[after_parameters..body].trim();
        if [".maxntid", ".minnctapersm", ".reqntid", ".reqnctapercluster"]
            .iter()
            .any(|bound| between.contains(bound))
        {
            return Err(LaunchBoundsError::AlreadyBound { entry: entry.to_owned(), got: between.to_owned() });
        }
        if !between.is_empty() && !between.starts_with('.') {
            return Err(broken(after_parameters));
        }
        let Self { threads, min_blocks_per_sm, cluster } = self;
        let mut bounds = format!(".maxntid {threads},1,1\n.minnctapersm {min_blocks_per_sm}\n");
        if cluster > 1 {
            bounds.push_str(&format!(".reqnctapercluster {cluster},1,1\n"));
        }
        Ok([&ptx[..body], &bounds, &ptx[body..]].concat())
    }
}

fn spaces(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// Overwrites comments with spaces, so that places in the code are places in the text.
pub(super) fn without_comments(ptx: &str) -> String {
    let mut code = ptx.as_bytes().to_vec();
    let mut at = 0;
    while let Some(start) = ptx[at..].find('/').map(|found| at + found) {
        let (end, is_comment) = match ptx.as_bytes().get(start + 1) {
            Some(b'/') => (ptx[start..].find('\n').map_or(ptx.len(), |n| start + n), true),
            Some(b'*') => (ptx[start + 2..].find("*/").map_or(ptx.len(), |n| start + n + 4), true),
            _ => (start + 1, false),
        };
        if is_comment {
            code[start..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
        at = end;
    }
    // Whole comments are overwritten, from one ASCII character to another: what is left is valid UTF-8.
    String::from_utf8(code).unwrap_or_else(|_| ptx.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: LaunchBounds = LaunchBounds { threads: 128, min_blocks_per_sm: 2, cluster: 1 };

    const PTX: &str = "\
.version 7.0
.target sm_80
.address_size 64

	// .globl	fa                      // -- Begin function fa: .entry no(
                                        // @fa
.visible .entry fa(
	.param .u64 .ptr .align 1 fa_param_0, // (not) the end
	.param .u32 fa_param_1
)                                       // naïve { brace
{
	ret;
}
";

    #[test]
    fn bounds_stand_between_parameters_and_body() {
        let bound = BOUNDS.add_to(PTX, "fa").unwrap();
        let expected = PTX.replace("\n{\n", "\n.maxntid 128,1,1\n.minnctapersm 2\n{\n");
        assert_eq!(bound, expected);
        // A second time is a mistake of the caller.
        let error = BOUNDS.add_to(&bound, "fa").unwrap_err();
        assert!(
            matches!(&error, LaunchBoundsError::AlreadyBound { got, .. } if got.contains(".maxntid 128"))
        );
    }

    #[test]
    fn an_entry_without_parameters_is_bound() {
        for head in [".entry nothing()\n{", ".entry nothing{", ".visible .entry nothing ( ) {"] {
            let bound = BOUNDS.add_to(&format!("{head} ret; }}"), "nothing").unwrap();
            assert!(bound.contains(".maxntid 128,1,1\n.minnctapersm 2\n{ ret; }"), "{bound}");
        }
    }

    #[test]
    fn other_directives_of_the_head_stay() {
        let bound = BOUNDS.add_to(".entry k(.param .u32 p)\n.noreturn\n{ ret; }", "k").unwrap();
        assert!(bound.contains(".noreturn\n.maxntid 128,1,1\n"), "{bound}");
    }

    #[test]
    fn what_cannot_be_bound_is_told() {
        let message = |ptx: &str, entry: &str| BOUNDS.add_to(ptx, entry).unwrap_err().to_string();
        assert_eq!(message(PTX, "f"), "expected an entry `f`, got fa");
        assert_eq!(message("// .entry f() {}", "f"), "expected an entry `f`, got none");
        let twice = PTX.to_owned() + &PTX.replace("fa", "fb");
        assert!(message(&twice, "fa").starts_with("expected one entry, got fa, fb"));
        for broken in [".entry f(.param .u32", ".entry f()", ".entry f() nonsense {"] {
            assert!(message(broken, "f").contains("expected parameters and a body"), "{broken}");
        }
    }

    #[test]
    fn comments_become_spaces_and_nothing_moves() {
        let text = "a /* é { */ b // } c\nd / e /";
        let code = without_comments(text);
        assert_eq!(code.len(), text.len());
        assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "b", "d", "/", "e", "/"]);
        assert_eq!(without_comments("x /* never closed").trim(), "x");
    }
}
