//! Completion scripts of shells: they ask the program itself, which knows verbs, options and the names of objects.
//!
//! The program answers in the protocol of kubectl's plugins (cobra): one candidate per line, with a description after a tab,
//! then a line with the directive, of which the scripts use only whether files may complete the word too.

use clap_complete::Shell;

/// The first word of a command line that asks for candidates.
pub(crate) const ASK: &str = "__complete";

const BASH: &str = r#"# Completion of palisade for bash.
_palisade() {
    local line="${COMP_LINE:0:COMP_POINT}" words out directive candidate current
    read -ra words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    current="${words[-1]}"
    out="$(palisade __complete "${words[@]:1}" 2>/dev/null)"
    directive="${out##*:}"
    COMPREPLY=()
    while IFS= read -r candidate; do
        candidate="${candidate%%$'\t'*}"
        # Bash takes what follows a colon for a word of its own.
        [[ "$current" == *:* ]] && candidate="${candidate#"${current%"${current##*:}"}"}"
        [[ -n "$candidate" ]] && COMPREPLY+=("$candidate")
    done <<< "${out%:*}"
    if [[ "$directive" == 0 && ${#COMPREPLY[@]} -eq 0 ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
    fi
}
complete -F _palisade palisade
"#;

const ZSH: &str = r#"#compdef palisade
# Completion of palisade for zsh.
_palisade() {
    local out directive line
    local -a candidates
    out="$(palisade __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"
    directive="${out##*:}"
    for line in "${(@f)${out%:*}}"; do
        [[ -n "$line" ]] && candidates+=("${${line%%$'\t'*}//:/\\:}${${line#*$'\t'}:+:${line#*$'\t'}}")
    done
    (( $#candidates )) && _describe 'palisade' candidates
    [[ "$directive" == 0 ]] && _files
}
if [[ "$funcstack[1]" == _palisade ]]; then
    _palisade "$@"
else
    compdef _palisade palisade
fi
"#;

const FISH: &str = r#"# Completion of palisade for fish.
function __palisade_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l out (palisade __complete $words[2..-1] 2>/dev/null)
    string match -v -r '^:\d+$' -- $out
    if contains -- ":0" $out
        __fish_complete_path (commandline -ct)
    end
end
complete -c palisade -f -a '(__palisade_complete)'
"#;

/// Returns the script of a shell; `None` if the shell has only the fixed words of the command line.
pub(crate) fn script(shell: Shell) -> Option<&'static str> {
    match shell {
        Shell::Bash => Some(BASH),
        Shell::Zsh => Some(ZSH),
        Shell::Fish => Some(FISH),
        _ => None,
    }
}
