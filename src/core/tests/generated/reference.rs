//! The API and error references, from the comments in `proto/`.

use std::collections::HashMap;
use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
};

/// Our files with their comments, by file and path (`SourceCodeInfo.Location.path`).
pub(crate) struct Comments {
    files: Vec<FileDescriptorProto>,
    comments: HashMap<(String, Vec<i32>), String>,
}

const MESSAGE: i32 = 4;
const ENUM: i32 = 5;
const SERVICE: i32 = 6;
/// `DescriptorProto.field`, `EnumDescriptorProto.value` and `ServiceDescriptorProto.method` are all field 2.
const MEMBER: i32 = 2;

fn index(n: usize) -> i32 {
    i32::try_from(n).unwrap()
}

impl Comments {
    pub(crate) fn of(set: &FileDescriptorSet) -> Self {
        let ours = |file: &&FileDescriptorProto| file.package() == "dayfly.v1";
        let files: Vec<_> = set.file.iter().filter(ours).cloned().collect();
        let mut comments = HashMap::new();
        for file in &files {
            for location in file.source_code_info.iter().flat_map(|info| &info.location) {
                let lines =
                    location.leading_comments().lines().map(|line| line.strip_prefix(' ').unwrap_or(line));
                let text = lines.collect::<Vec<_>>().join("\n");
                comments.insert((file.name().to_owned(), location.path.clone()), text.trim_end().to_owned());
            }
        }
        Self { files, comments }
    }

    fn comment(&self, file: &FileDescriptorProto, path: &[i32]) -> &str {
        self.comments.get(&(file.name().to_owned(), path.to_vec())).map_or("", String::as_str)
    }

    /// Everything that has no comment.
    pub(crate) fn undocumented(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut check = |file: &FileDescriptorProto, path: &[i32], name: String| {
            if self.comment(file, path).is_empty() {
                missing.push(name);
            }
        };
        for file in &self.files {
            for (n, message) in file.message_type.iter().enumerate() {
                check(file, &[MESSAGE, index(n)], message.name().to_owned());
                for (m, field) in message.field.iter().enumerate() {
                    let name = format!("{}.{}", message.name(), field.name());
                    check(file, &[MESSAGE, index(n), MEMBER, index(m)], name);
                }
            }
            for (n, values) in file.enum_type.iter().enumerate() {
                check(file, &[ENUM, index(n)], values.name().to_owned());
                for (m, value) in values.value.iter().enumerate() {
                    check(file, &[ENUM, index(n), MEMBER, index(m)], value.name().to_owned());
                }
            }
            for (n, service) in file.service.iter().enumerate() {
                check(file, &[SERVICE, index(n)], service.name().to_owned());
                for (m, method) in service.method.iter().enumerate() {
                    check(file, &[SERVICE, index(n), MEMBER, index(m)], method.name().to_owned());
                }
            }
        }
        missing
    }

    /// Each service's name, comment and RPCs.
    pub(crate) fn services(&self) -> Vec<(String, String, Vec<String>)> {
        let of_file = |file: &FileDescriptorProto| {
            let services = file.service.iter().enumerate().map(|(n, service)| {
                let rpcs = service.method.iter().map(|method| method.name().to_owned()).collect();
                (service.name().to_owned(), self.comment(file, &[SERVICE, index(n)]).to_owned(), rpcs)
            });
            services.collect::<Vec<_>>()
        };
        self.files.iter().flat_map(of_file).collect()
    }

    /// `docs/reference/api.md`.
    pub(crate) fn api(&self) -> String {
        let mut out = "# API\n\n<!-- Made by `just gen` from proto/dayfly/v1. -->\n\nPackage `dayfly.v1`, gRPC over TLS. \
                       Rejections: [errors](errors.md).\n"
            .to_owned();
        for file in &self.files {
            for (n, service) in file.service.iter().enumerate() {
                let comment = self.comment(file, &[SERVICE, index(n)]);
                write!(out, "\n## {}\n\n{comment}\n", service.name()).unwrap();
                for (m, method) in service.method.iter().enumerate() {
                    let (input, output) = (short(method.input_type()), short(method.output_type()));
                    let comment = self.comment(file, &[SERVICE, index(n), MEMBER, index(m)]);
                    write!(out, "\n### {}({input}) → {output}\n\n{comment}\n", method.name()).unwrap();
                }
            }
        }
        out.push_str("\n## Messages\n");
        for file in &self.files {
            for (n, message) in file.message_type.iter().enumerate() {
                self.message(&mut out, file, message, &[MESSAGE, index(n)]);
            }
            let enums =
                file.enum_type.iter().enumerate().filter(|(_, values)| values.name() != "ErrorReason");
            for (n, values) in enums {
                self.values(&mut out, file, values, &[ENUM, index(n)]);
            }
        }
        out
    }

    fn message(&self, out: &mut String, file: &FileDescriptorProto, message: &DescriptorProto, path: &[i32]) {
        write!(out, "\n### {}\n\n{}\n", message.name(), self.comment(file, path)).unwrap();
        if !message.field.is_empty() {
            out.push_str("\n| field | type | |\n|---|---|---|\n");
        }
        for (m, field) in message.field.iter().enumerate() {
            let comment = one_line(self.comment(file, &[path, &[MEMBER, index(m)]].concat()));
            writeln!(out, "| `{}` | {} | {comment} |", field.name(), type_name(field)).unwrap();
        }
    }

    fn values(
        &self,
        out: &mut String,
        file: &FileDescriptorProto,
        values: &EnumDescriptorProto,
        path: &[i32],
    ) {
        write!(out, "\n### {}\n\n{}\n", values.name(), self.comment(file, path)).unwrap();
        out.push_str("\n| value | |\n|---|---|\n");
        for (m, value) in values.value.iter().enumerate() {
            let comment = one_line(self.comment(file, &[path, &[MEMBER, index(m)]].concat()));
            writeln!(out, "| `{}` | {comment} |", value.name()).unwrap();
        }
    }

    /// `docs/reference/errors.md`: a reason's comment begins with its gRPC code.
    pub(crate) fn errors(&self) -> String {
        let mut out = "# Errors\n\n<!-- Made by `just gen` from proto/dayfly/v1/errors.proto. -->\n\nEvery rejection is a \
                       gRPC status with a `google.rpc.ErrorInfo`: `domain` is `dayfly.dev`, `reason` is one of these. \
                       Where asking again can help,\na `google.rpc.RetryInfo` says when. Reasons are stable; messages \
                       may be reworded.\n\n| reason | gRPC code | what it means, and what to change |\n|---|---|---|\n"
            .to_owned();
        for file in &self.files {
            let reasons =
                file.enum_type.iter().enumerate().filter(|(_, values)| values.name() == "ErrorReason");
            for (n, reasons) in reasons {
                for (m, value) in reasons.value.iter().enumerate() {
                    let comment = one_line(self.comment(file, &[ENUM, index(n), MEMBER, index(m)]));
                    let name = value.name().trim_start_matches("ERROR_REASON_");
                    if let Some((code, meaning)) = comment.split_once(". ") {
                        writeln!(out, "| `{name}` | `{code}` | {meaning} |").unwrap();
                    }
                }
            }
        }
        out
    }
}

fn one_line(comment: &str) -> String {
    comment.lines().map(str::trim).collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn short(type_name: &str) -> &str {
    type_name.trim_start_matches(".dayfly.v1.").trim_start_matches('.')
}

fn type_name(field: &FieldDescriptorProto) -> String {
    let name = match field.r#type() {
        Type::Message | Type::Enum => short(field.type_name()).to_owned(),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    if field.label() == Label::Repeated { format!("repeated {name}") } else { name }
}
