use super::*;

const AXES: [&str; 3] = ["m", "n", "order"];

fn parse(text: &str) -> Result<Expression, ExpressionError> {
    let axes = |name: &str| {
        AXES.iter().position(|a| *a == name).ok_or_else(|| format!("expected an axis, got '{name}'"))
    };
    let limits = |name: &str| match name {
        "threads" => Ok(1024.0),
        _ => Err(format!("no limit is called '{name}'")),
    };
    Expression::parse(text, axes, limits)
}

/// Evaluates for m = 64, n = 7, order = "row".
fn holds(text: &str) -> Result<bool, ExpressionError> {
    let values = [Operand::Int(64), Operand::Int(7), Operand::Text("row")];
    parse(text)?.holds(&|axis| values[axis])
}

#[test]
fn conditions_that_hold() {
    for text in [
        "m * n == 448",
        "m + n * 2 == 78",
        "(m + n) * 2 == 142",
        "m / n > 9.1 and m / n < 9.2",
        "m // n == 9 and m % n == 1",
        "-m // n == -10 and -m % n == 6",
        "m // -n == -10 and m % -n == -6",
        "1 / 2 == 0.5",
        "not m == n",
        "not (m < n or n > 100)",
        "min(m, n, 3) == 3 and max(m, n) == m",
        "order == 'row' and order != \"column\"",
        "order in [\"row\", \"column\"]",
        "order not in [\"x\"]",
        "m in [32, 64.0]",
        "not n in []",
        "m <= limit.threads and limit.threads // 3 == 341",
        "true or 1 // 0 == 1",
        "m - 1 - 1 == 62",
        "64 / 2 / 2 == 16",
        "2e1 == 20 and 1_000 == 1000 and 1.5 < 2",
        "m == 64 or n == 1 and false",
    ] {
        assert_eq!(holds(text), Ok(true), "{text}");
    }
}

#[test]
fn conditions_that_do_not_hold() {
    for text in
        ["m < n", "order == 7", "not true", "m == 64 and n == 1", "order in [\"column\"]", "m != 64.0"]
    {
        assert_eq!(holds(text), Ok(false), "{text}");
    }
}

#[test]
fn an_error_says_where_and_what() {
    let cases = [
        ("", 0..0, "expected a name, a number or a text, got the end"),
        ("m *", 3..3, "expected a name, a number or a text, got the end"),
        ("m ** n", 3..4, "expected a name, a number or a text, got '*'"),
        ("m = 3", 2..3, "expected a name, a number, a text or an operator, got '='; equality is '=='"),
        ("m & n", 2..3, "expected a name, a number, a text or an operator, got '&'; write 'and'"),
        ("block < 3", 0..5, "expected an axis, got 'block'"),
        ("m < limit.bytes", 4..15, "no limit is called 'bytes'"),
        ("(m < 3", 6..6, "expected ')' after what '(' opened, got the end"),
        ("1 < m < 3", 6..7, "expected one comparison at a time; join two with 'and'"),
        ("m 3", 2..3, "expected an operator or the end, got the number 3"),
        ("m in 3", 5..6, "expected '[' after 'in', got the number 3"),
        ("m in [3", 7..7, "expected ']' after the values of 'in', got the end"),
        ("order == 'row", 9..13, "expected the closing ' of a text, got the end"),
        ("min m", 4..5, "expected '(' after min, got 'm'"),
        ("m < 99999999999999999999", 4..24, "expected a number that fits 64 bits, got 99999999999999999999"),
    ];
    for (text, span, message) in cases {
        let error = parse(text).expect_err(text);
        assert_eq!((error.span, error.message.as_str()), (span, message), "{text}");
    }
}

#[test]
fn an_operation_on_the_wrong_kind_is_an_error_at_its_operand() {
    let cases = [
        ("m", 0..1, "expected a condition, got the number 64"),
        ("m and true", 0..1, "expected a condition, got the number 64"),
        ("m < order", 4..9, "expected a number, got the text \"row\""),
        ("1 + (m == 64) < 3", 5..12, "expected a number, got true"),
        ("m // (n - 7) == 1", 6..11, "expected a divisor other than 0"),
        ("m * 9223372036854775807 > 1", 0..23, "expected a result that fits 64 bits"),
    ];
    for (text, span, message) in cases {
        let error = holds(text).expect_err(text);
        assert_eq!((error.span, error.message.as_str()), (span, message), "{text}");
    }
}

#[test]
fn deep_nesting_is_refused_and_not_a_crash() {
    for open in ["(", "-", "not ", "min("] {
        let text = open.repeat(100_000);
        assert!(parse(&text).is_err(), "{open}");
    }
}

#[test]
fn the_last_axis_is_the_one_that_completes_a_constraint() {
    let last = |text| parse(text).ok().and_then(|e| e.last_axis());
    assert_eq!(last("m < 3"), Some(0));
    assert_eq!(last("m in [n, 3]"), Some(1));
    assert_eq!(last("max(m, 3) < n and order == 'row'"), Some(2));
    assert_eq!(last("limit.threads > 3"), None);
}
