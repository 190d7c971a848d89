//! What becomes of one entry of the old home: one function a treatment.

use super::super::components::{major, same};
use super::{
    Change, Component, Entry, Generation, How, Kind, NoteKind, Product, RawPath, SurveyError, Surveyor,
    Treatment,
};

impl<'a> Surveyor<'_, 'a> {
    pub(super) fn decide(
        &mut self,
        entry: &'a Entry,
        treatment: Treatment,
        why: &str,
    ) -> Result<(), SurveyError> {
        if matches!(entry.kind, Kind::Socket | Kind::Device) && treatment != Treatment::Leave {
            self.note(NoteKind::Left, &entry.path, "a socket or device means nothing in another place");
            return Ok(());
        }
        match treatment {
            Treatment::Leave | Treatment::Properties => Ok(()),
            Treatment::LeaveMeasured => {
                if !entry.path.as_bytes().contains(&b'/') {
                    self.note(
                        NoteKind::Left,
                        &entry.path,
                        &format!("left in the old tree: {} bytes", entry.size),
                    );
                }
                Ok(())
            }
            Treatment::Bundled => {
                if self.new.get(&entry.path).is_none() {
                    self.count_added(&entry.path);
                }
                Ok(())
            }
            Treatment::Link | Treatment::LinkAside => self.decide_linked(entry, why),
            Treatment::New => {
                if self.new.get(&entry.path).is_none() && self.change(entry)? != Change::Untouched {
                    self.count_added(&entry.path);
                }
                Ok(())
            }
            Treatment::Carry | Treatment::CarryReported => {
                self.decide_carried(entry, why, treatment == Treatment::CarryReported)
            }
            Treatment::CarryIfChanged => self.decide_if_changed(entry, why),
            Treatment::CarryAdded | Treatment::CarryAddedIfKnown => {
                self.decide_added(entry, why, treatment == Treatment::CarryAddedIfKnown)
            }
            Treatment::CarryIfSame(component) => self.decide_component(entry, component, why),
            Treatment::Licence => self.decide_licence(entry, why),
            Treatment::Profile => self.decide_profile(entry, why),
            Treatment::JobConfig => self.decide_job_config(entry, why),
            Treatment::RedoIfChanged => {
                if self.differs_from_new(entry)? && self.change(entry)? != Change::Untouched {
                    self.note(NoteKind::Redo, &entry.path, why);
                }
                Ok(())
            }
            Treatment::Operator => self.decide_operators(entry, why),
        }
    }

    /// A link in place of a directory of logs or backups leads to the operator's own disk.
    fn decide_linked(&mut self, entry: &'a Entry, why: &str) -> Result<(), SurveyError> {
        if entry.kind == Kind::Symlink && !entry.path.as_bytes().contains(&b'/') {
            self.carry(entry, why)?;
        }
        Ok(())
    }

    fn decide_carried(&mut self, entry: &'a Entry, why: &str, report: bool) -> Result<(), SurveyError> {
        if !self.differs_from_new(entry)? || self.change(entry)? == Change::Untouched {
            return Ok(());
        }
        if self.carry_merged(entry, why)? {
            return Ok(());
        }
        if report {
            let text = match self.new.get(&entry.path) {
                Some(_) => "the new release brings another one, which is replaced",
                None => "the new release has no such file",
            };
            self.note(NoteKind::Carried, &entry.path, text);
        }
        self.carry(entry, why)
    }

    fn decide_if_changed(&mut self, entry: &'a Entry, why: &str) -> Result<(), SurveyError> {
        if !self.differs_from_new(entry)? {
            return Ok(());
        }
        match self.change(entry)? {
            Change::Untouched => Ok(()),
            // A merged file comes in its place.
            _ if self.merged_from().as_ref() == Some(&entry.path) => Ok(()),
            Change::Unknown if self.new.get(&entry.path).is_some() => {
                let text = "differs from the new release's; without the old package nobody can tell whether it was \
                            changed here, so the new release's stays";
                self.note(NoteKind::Redo, &entry.path, text);
                Ok(())
            }
            _ => {
                self.note(NoteKind::Carried, &entry.path, "changed here");
                self.carry(entry, why)
            }
        }
    }

    fn decide_added(&mut self, entry: &'a Entry, why: &str, only_if_known: bool) -> Result<(), SurveyError> {
        if self.new.get(&entry.path).is_some() {
            if self.differs_from_new(entry)? && self.change(entry)? != Change::Untouched {
                let text = "the new release brings a file of this name, which stays";
                self.note(NoteKind::Left, &entry.path, text);
            }
            return Ok(());
        }
        let in_base = self.base.as_ref().map(|base| base.get(&entry.path).is_some());
        match in_base {
            Some(true) => Ok(()),
            None if only_if_known => {
                self.count_added(&entry.path);
                Ok(())
            }
            _ => {
                self.note(NoteKind::Carried, &entry.path, "only the old home has it");
                self.carry(entry, why)
            }
        }
    }

    fn decide_component(
        &mut self,
        entry: &'a Entry,
        component: Component,
        why: &str,
    ) -> Result<(), SurveyError> {
        if !self.differs_from_new(entry)? || self.change(entry)? == Change::Untouched {
            return Ok(());
        }
        let name = match component {
            Component::Spark => "Spark",
            Component::Tomcat => "Tomcat",
        };
        let versions = self.component_versions(component)?;
        if let (Some(old), Some(new)) = &versions
            && same(component, old, new)
        {
            if self.carry_merged(entry, why)? {
                return Ok(());
            }
            let shown = if component == Component::Tomcat { major(old) } else { old };
            self.note(NoteKind::Carried, &entry.path, &format!("{name} is {shown} in both releases"));
            return self.carry(entry, why);
        }
        let show =
            |version: &Option<String>| version.clone().unwrap_or_else(|| "of unknown version".to_owned());
        let text = format!(
            "{why}: {name} is {} in the old release and {} in the new one, so it must be done again by hand",
            show(&versions.0),
            show(&versions.1)
        );
        self.note(NoteKind::Redo, &entry.path, &text);
        Ok(())
    }

    fn decide_licence(&mut self, entry: &'a Entry, why: &str) -> Result<(), SurveyError> {
        let is_2_to_3 = self.input.old.generation() == Some(Generation::Kap2)
            && self.input.new.generation() == Some(Generation::Ke3);
        if self.input.old.product == Product::Kylin || entry.kind != Kind::File || self.input.licence_given {
            return Ok(());
        }
        if is_2_to_3 {
            self.note(
                NoteKind::Redo,
                &entry.path,
                "release 3 needs a new licence; the old one is not carried",
            );
            return Ok(());
        }
        self.decide_carried(entry, why, false)
    }

    /// The manual has users make the link absolute; a relative one survives the exchange whatever the home is called.
    fn decide_profile(&mut self, entry: &'a Entry, why: &str) -> Result<(), SurveyError> {
        let Some(choice) = self.profile_choice() else {
            self.note(
                NoteKind::Redo,
                &entry.path,
                "it does not point to a profile in `conf`; choose one again",
            );
            return Ok(());
        };
        if self.new.get(&entry.path).is_some_and(|new| new.target.as_ref() == Some(&choice)) {
            return Ok(());
        }
        let in_new = RawPath::from("conf").join(&choice);
        if self.new.get(&in_new).is_none_or(|new| new.kind != Kind::Dir) {
            let text = format!("the new release has no profile `{choice}`; its own choice stays");
            self.note(NoteKind::Redo, &entry.path, &text);
            return Ok(());
        }
        self.push(entry, entry.path.clone(), How::Symlink { target: choice }, why)
    }

    fn decide_job_config(&mut self, entry: &'a Entry, why: &str) -> Result<(), SurveyError> {
        let Some(target) = entry.target.as_ref().filter(|_| entry.kind == Kind::Symlink) else {
            return self.decide_carried(entry, why, true);
        };
        let Some(inside) = self.inside_conf(target).filter(|path| path.as_bytes().starts_with(b"profile"))
        else {
            // A link out of the profiles, to a file of the operator's.
            return self.decide_carried(entry, why, true);
        };
        if self.new.get(&entry.path).is_some_and(|new| new.target.as_ref() == Some(&inside)) {
            return Ok(());
        }
        self.push(entry, entry.path.clone(), How::Symlink { target: inside }, why)
    }

    fn decide_operators(&mut self, entry: &'a Entry, why: &str) -> Result<(), SurveyError> {
        let change = self.change(entry)?;
        if self.new.get(&entry.path).is_some() {
            if self.differs_from_new(entry)? && change == Change::Changed {
                let text = "changed here; the new release brings its own, which stays";
                self.note(NoteKind::Left, &entry.path, text);
            }
            return Ok(());
        }
        if change == Change::Untouched {
            return Ok(());
        }
        self.note(NoteKind::Carried, &entry.path, "only the old home has it");
        self.carry(entry, why)
    }
}
