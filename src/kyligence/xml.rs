//! XML, read just far enough to change one value where it stands.
//!
//! A file is read into elements that know which bytes they come from, so that a merge can replace a value and leave
//! every other byte, comments and layout included, as it was. What is not plain (a document type with declarations of
//! its own, tags that do not match) is not read at all: such a file is carried or reported as a whole.

use std::ops::Range;

/// Deeper nesting than any configuration has.
const DEPTH_MAX: usize = 64;

/// An element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Its name, prefix included.
    pub name: String,
    /// All of it, from `<` to `>`.
    pub whole: Range<usize>,
    /// Where another attribute would go: behind the last one, or the name.
    pub attributes_end: usize,
    /// Its attributes in order.
    pub attributes: Vec<Attribute>,
    /// What is between its tags; empty for `<a/>`.
    pub content: Range<usize>,
    /// The elements in it.
    pub children: Vec<Element>,
}

/// An attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value between the quotes.
    pub value: Range<usize>,
}

impl Element {
    /// An attribute's value as it stands in the text.
    pub fn attribute<'a>(&self, text: &'a str, name: &str) -> Option<&'a str> {
        let attribute = self.attributes.iter().find(|attribute| attribute.name == name)?;
        Some(&text[attribute.value.clone()])
    }

    /// The children of this name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> + 'a {
        self.children.iter().filter(move |child| child.name == name)
    }
}

/// The root element of a document, if the document is plain.
pub fn parse(text: &str) -> Option<Element> {
    let mut reader = Reader { text, at: 0 };
    reader.skip_misc()?;
    let root = reader.element(0)?;
    reader.skip_misc()?;
    (reader.at == text.len()).then_some(root)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn eat(&mut self, mark: &str) -> bool {
        let there = self.rest().starts_with(mark);
        if there {
            self.at += mark.len();
        }
        there
    }

    fn skip_past(&mut self, mark: &str) -> Option<()> {
        self.at += self.rest().find(mark)? + mark.len();
        Some(())
    }

    fn skip_blanks(&mut self) -> bool {
        let blank = self.rest().len() - self.rest().trim_start().len();
        self.at += blank;
        blank > 0
    }

    /// Comments, instructions, a document type without declarations, blanks.
    fn skip_misc(&mut self) -> Option<()> {
        self.eat("\u{feff}");
        loop {
            self.skip_blanks();
            if self.eat("<!--") {
                self.skip_past("-->")?;
            } else if self.eat("<?") {
                self.skip_past("?>")?;
            } else if self.rest().starts_with("<!DOCTYPE") {
                let end = self.rest().find('>')?;
                if self.rest()[..end].contains('[') {
                    return None;
                }
                self.at += end + 1;
            } else {
                return Some(());
            }
        }
    }

    fn name(&mut self) -> Option<String> {
        let end = self.rest().find(|c: char| c.is_whitespace() || "/>=<\"'".contains(c))?;
        let name = self.rest()[..end].to_owned();
        self.at += end;
        (!name.is_empty()).then_some(name)
    }

    fn element(&mut self, depth: usize) -> Option<Element> {
        let begin = self.at;
        if depth > DEPTH_MAX || !self.eat("<") {
            return None;
        }
        let name = self.name()?;
        let mut attributes: Vec<Attribute> = Vec::new();
        let mut attributes_end = self.at;
        loop {
            let blank = self.skip_blanks();
            if self.eat("/>") {
                let content = self.at..self.at;
                let whole = begin..self.at;
                return Some(Element {
                    name,
                    whole,
                    attributes_end,
                    attributes,
                    content,
                    children: Vec::new(),
                });
            }
            if self.eat(">") {
                break;
            }
            if !blank {
                return None;
            }
            let attribute = self.attribute()?;
            if attributes.iter().any(|other| other.name == attribute.name) {
                return None;
            }
            attributes.push(attribute);
            attributes_end = self.at;
        }
        let (content, children) = self.content(&name, depth)?;
        Some(Element { whole: begin..self.at, name, attributes_end, attributes, content, children })
    }

    fn attribute(&mut self) -> Option<Attribute> {
        let name = self.name()?;
        self.skip_blanks();
        if !self.eat("=") {
            return None;
        }
        self.skip_blanks();
        let quote = self.rest().chars().next().filter(|c| matches!(c, '"' | '\''))?;
        self.at += 1;
        let begin = self.at;
        self.skip_past(quote.encode_utf8(&mut [0; 4]))?;
        Some(Attribute { name, value: begin..self.at - 1 })
    }

    fn content(&mut self, name: &str, depth: usize) -> Option<(Range<usize>, Vec<Element>)> {
        let begin = self.at;
        let mut children = Vec::new();
        loop {
            self.at += self.rest().find('<')?;
            let end = self.at;
            if self.eat("</") {
                if self.name()? != name {
                    return None;
                }
                self.skip_blanks();
                return self.eat(">").then_some((begin..end, children));
            }
            if self.eat("<!--") {
                self.skip_past("-->")?;
            } else if self.eat("<![CDATA[") {
                self.skip_past("]]>")?;
            } else if self.eat("<?") {
                self.skip_past("?>")?;
            } else {
                children.push(self.element(depth + 1)?);
            }
        }
    }
}

/// A text with some of its ranges replaced. The ranges do not overlap.
pub fn replace(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| (range.start, range.end));
    let mut made = String::with_capacity(text.len());
    let mut at = 0;
    for (range, with) in edits {
        made.push_str(&text[at..range.start]);
        made.push_str(&with);
        at = range.end;
    }
    made.push_str(&text[at..]);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_know_where_they_stand() {
        let text = "<?xml version='1.0'?>\n<!-- <a> -->\n<Server port=\"-1\" x = 'y'>\n  <Connector port=\"7070\"/>\n                     <a><![CDATA[</a>]]></a><!-- </Server> --></Server>\n";
        let root = parse(text).unwrap();
        assert_eq!(root.name, "Server");
        assert_eq!(root.attribute(text, "port"), Some("-1"));
        assert_eq!(root.attribute(text, "x"), Some("y"));
        assert_eq!(root.children.len(), 2);
        assert_eq!(&text[root.children[0].whole.clone()], "<Connector port=\"7070\"/>");
        assert_eq!(&text[root.children[1].content.clone()], "<![CDATA[</a>]]>");
        let port = root.children[0].attributes[0].value.clone();
        assert_eq!(replace(text, vec![(port, "8080".to_owned())]), text.replace("7070", "8080"));
    }

    #[test]
    fn what_is_not_plain_is_not_read() {
        for text in [
            "",
            "text",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a x=1/>",
            "<a x='1' x='2'/>",
            "<a x='1'y='2'/>",
            "<!DOCTYPE a [<!ENTITY e 'x'>]><a/>",
            "<a><b></a></b>",
            "<a",
            "<a x='",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(parse("<!DOCTYPE a SYSTEM 'a.dtd'><a/>").is_some());
        assert_eq!(parse(&"<a>".repeat(100_000)), None);
    }
}
