//! `calculate_output` of a `multi` grader: arithmetic over the names of its graders.
//!
//! Numbers, names, `+ - * / ^`, unary minus, brackets, and the functions `min max abs floor ceil exp sqrt log`, as OpenAI's
//! documentation lists them. `^` binds to the right, and tighter than a minus before it.

/// Deepest nesting that is read; more is no formula that a person wrote.
const DEEPEST: usize = 64;
/// Most sums and products.
const MOST_OPERATORS: usize = 500;
/// Most characters of a formula.
const LONGEST: usize = 10_000;

/// A formula that was understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Formula {
    Number(f64),
    Name(String),
    Negative(Box<Formula>),
    Binary(char, Box<Formula>, Box<Formula>),
    Call(Function, Vec<Formula>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Min,
    Max,
    Abs,
    Floor,
    Ceil,
    Exp,
    Sqrt,
    Log,
}

impl Function {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "min" => Self::Min,
            "max" => Self::Max,
            "abs" => Self::Abs,
            "floor" => Self::Floor,
            "ceil" => Self::Ceil,
            "exp" => Self::Exp,
            "sqrt" => Self::Sqrt,
            "log" => Self::Log,
            _ => return None,
        })
    }

    fn of(self, values: &[f64]) -> f64 {
        let first = values[0];
        match self {
            Self::Min => values.iter().copied().fold(first, f64::min),
            Self::Max => values.iter().copied().fold(first, f64::max),
            Self::Abs => first.abs(),
            Self::Floor => first.floor(),
            Self::Ceil => first.ceil(),
            Self::Exp => first.exp(),
            Self::Sqrt => first.sqrt(),
            Self::Log => first.ln(),
        }
    }

    fn takes(self, values: usize) -> bool {
        match self {
            Self::Min | Self::Max => values >= 1,
            _ => values == 1,
        }
    }
}

impl Formula {
    /// Reads a formula, or says where it stops making sense.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("a formula may have {LONGEST} characters"));
        }
        let mut reader = Reader { text, at: 0, operators: 0 };
        let formula = reader.sum(0)?;
        match reader.peek() {
            None => Ok(formula),
            Some(c) => Err(reader.wrong(&format!("`{c}` is not expected"))),
        }
    }

    /// The value, where `value` knows what a name stands for; or the name that it does not know.
    pub fn eval(&self, value: &dyn Fn(&str) -> Option<f64>) -> Result<f64, String> {
        Ok(match self {
            Self::Number(number) => *number,
            Self::Name(name) => value(name).ok_or_else(|| name.clone())?,
            Self::Negative(of) => -of.eval(value)?,
            Self::Binary(operator, left, right) => {
                let (left, right) = (left.eval(value)?, right.eval(value)?);
                match operator {
                    '+' => left + right,
                    '-' => left - right,
                    '*' => left * right,
                    '/' => left / right,
                    _ => left.powf(right),
                }
            }
            Self::Call(function, values) => {
                let values = values.iter().map(|v| v.eval(value)).collect::<Result<Vec<_>, _>>()?;
                function.of(&values)
            }
        })
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    operators: usize,
}

impl<'a> Reader<'a> {
    /// The next character that is not a space.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn wrong(&self, why: &str) -> String {
        format!("{why} at character {} of `{}`", self.text[..self.at].chars().count() + 1, self.text)
    }

    /// The operator that comes next, if it is one of these.
    fn operator(&mut self, of: &[char]) -> Option<char> {
        let found = self.peek().filter(|c| of.contains(c))?;
        self.at += 1;
        Some(found)
    }

    fn sum(&mut self, depth: usize) -> Result<Formula, String> {
        self.chain(&['+', '-'], depth, Self::product)
    }

    fn product(&mut self, depth: usize) -> Result<Formula, String> {
        self.chain(&['*', '/'], depth, Self::signed)
    }

    /// Terms with operators of one rank between them, from the left.
    fn chain(
        &mut self,
        operators: &[char],
        depth: usize,
        term: fn(&mut Self, usize) -> Result<Formula, String>,
    ) -> Result<Formula, String> {
        let mut left = term(self, depth)?;
        while let Some(operator) = self.operator(operators) {
            self.operators += 1;
            // A long chain is a deep tree.
            if self.operators > MOST_OPERATORS {
                return Err(self.wrong("too many terms"));
            }
            left = Formula::Binary(operator, Box::new(left), Box::new(term(self, depth)?));
        }
        Ok(left)
    }

    fn signed(&mut self, depth: usize) -> Result<Formula, String> {
        if depth > DEEPEST {
            return Err(self.wrong("nested too deeply"));
        }
        if self.take('-') {
            return Ok(Formula::Negative(Box::new(self.signed(depth + 1)?)));
        }
        let base = self.atom(depth)?;
        if self.take('^') {
            return Ok(Formula::Binary('^', Box::new(base), Box::new(self.signed(depth + 1)?)));
        }
        Ok(base)
    }

    fn atom(&mut self, depth: usize) -> Result<Formula, String> {
        match self.peek() {
            Some('(') => {
                self.at += 1;
                let inner = self.sum(depth + 1)?;
                if self.take(')') { Ok(inner) } else { Err(self.wrong("a `)` is missing")) }
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) if c.is_alphabetic() || c == '_' => self.name(depth),
            Some(c) => Err(self.wrong(&format!("`{c}` is not expected"))),
            None => Err(self.wrong("a number or a name is missing")),
        }
    }

    /// Takes characters as long as they are wanted.
    fn span(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let text = self.text;
        let rest = &text[self.at..];
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn number(&mut self) -> Result<Formula, String> {
        let from = self.at;
        self.span(|c| c.is_ascii_digit() || c == '.');
        if self.text[self.at..].starts_with(['e', 'E']) {
            self.at += 1;
            let _ = self.operator(&['+', '-']);
            self.span(|c| c.is_ascii_digit());
        }
        let text = &self.text[from..self.at];
        text.parse().map(Formula::Number).map_err(|_| self.wrong(&format!("`{text}` is not a number")))
    }

    fn name(&mut self, depth: usize) -> Result<Formula, String> {
        let name = self.span(|c| c.is_alphanumeric() || c == '_').to_owned();
        if self.peek() != Some('(') {
            return Ok(Formula::Name(name));
        }
        let function =
            Function::named(&name).ok_or_else(|| self.wrong(&format!("there is no function `{name}`")))?;
        self.at += 1;
        let mut values = vec![self.sum(depth + 1)?];
        while self.take(',') {
            values.push(self.sum(depth + 1)?);
        }
        if !self.take(')') {
            return Err(self.wrong("a `)` is missing"));
        }
        if !function.takes(values.len()) {
            return Err(self.wrong(&format!("`{name}` takes one value")));
        }
        Ok(Formula::Call(function, values))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Result<f64, String> {
        let names = |name: &str| match name {
            "a" => Some(2.0),
            "long_name2" => Some(0.5),
            _ => None,
        };
        Formula::parse(text)?.eval(&names)
    }

    #[test]
    fn formulas_are_computed_as_on_paper() {
        for (text, expected) in [
            ("1", 1.0),
            (" 1 + 2*3 ", 7.0),
            ("(1+2)*3", 9.0),
            ("8/2/2", 2.0),
            ("7-2-1", 4.0),
            ("2^3^2", 512.0),
            ("-2^2", -4.0),
            ("2^-1", 0.5),
            ("--a", 2.0),
            ("1.5e1 + .5", 15.5),
            ("0.5 * a + 0.5 * long_name2", 1.25),
            ("min(a, 3, 1) + max(a, 3)", 4.0),
            ("abs(-a) + floor(1.9) + ceil(1.1) + sqrt(4)", 7.0),
            ("exp(0) + log(1)", 1.0),
        ] {
            assert_eq!(value(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, words) in [
            ("", "missing"),
            ("1 +", "missing"),
            ("1 2", "`2` is not expected at character 3"),
            ("(1", "`)` is missing"),
            ("1..2", "`1..2` is not a number"),
            ("system(1)", "no function `system`"),
            ("sqrt(1, 2)", "takes one value"),
            ("a.b", "`.` is not expected"),
            ("nobody", "nobody"),
        ] {
            let error = value(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(value(&"(".repeat(5000)).unwrap_err().contains("deeply"));
        assert!(value(&"-".repeat(5000)).unwrap_err().contains("deeply"));
        assert!(value(&"1+".repeat(4000)).unwrap_err().contains("too many terms"));
        assert!(value(&"1".repeat(LONGEST + 1)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in any::<String>()) {
            let _ = value(&text);
        }

        #[test]
        fn nearly_formulas_do_not_break_it(text in "[a0-9.e+*/^(), -]{0,40}") {
            let _ = value(&text);
        }

        #[test]
        fn sums_and_products_agree_with_the_machine(a in -1e6..1e6f64, b in -1e6..1e6f64, c in 0.1..1e3f64) {
            prop_assert_eq!(value(&format!("({a}) + ({b}) * {c}")), Ok(a + b * c));
            prop_assert_eq!(value(&format!("(({a}) - ({b})) / {c}")), Ok((a - b) / c));
        }
    }
}
