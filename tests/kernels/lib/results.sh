# The results as JSON and as lines. To be sourced by bash.
# shellcheck shell=bash

# quoted TEXT: a JSON string.
quoted() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    printf '"%s"' "$(tr -d '\000-\037' <<<"$text")"
}

# check_results REPORT CHECKS: the checks that were to run, as a JSON list. One that didn't end has no exit code.
check_results() {
    local check key value line separator=''
    printf '['
    for check in ${2//,/ }; do
        line=$(grep -m1 "^check $check " "$1" || true)
        printf '%s{"name":%s' "$separator" "$(quoted "$check")"
        if [[ -n $line ]]; then
            read -r _ _ code seconds <<<"$line"
            printf ',"outcome":"%s","seconds":%d' "$( ((code == 0)) && echo passed || echo failed)" "$seconds"
        else
            printf ',"outcome":"did not end"'
        fi
        while read -r _ _ key value; do
            printf ',%s:%s' "$(quoted "$key")" "$(quoted "$value")"
        done < <(grep "^fact $check " "$1" || true)
        printf '}'
        separator=,
    done
    printf ']'
}

# kernel_result NAME KERNEL_FOLDER RELEASE REPORT CHECKS OUTCOME SECONDS
kernel_result() {
    printf '{"name":%s,"package":%s,"release":%s,"uname":%s,"outcome":"%s","seconds":%d,"checks":%s}' \
        "$(quoted "$1")" "$(quoted "$(sed -nE 's/^ *(linux-image-[0-9][^_]*)_.*/\1/p' "$2/packages" | head -n 1)")" \
        "$(quoted "$(<"$2/version") of Debian $3")" "$(quoted "$(sed -n 's/^kernel //p' "$4")")" "$6" "$7" \
        "$(check_results "$4" "$5")"
}

# write_results FILE RESULT…
write_results() {
    local IFS=,
    printf '{"schema":"palisade.kernels/v1","date":"%s","palisade":%s,"emulator":%s,"kernels":[%s]}\n' \
        "$(date -u +%FT%TZ)" "$(quoted "$("$binary" --version)")" \
        "$(quoted "$(qemu-system-x86_64 --version | head -n 1), emulation")" "${*:2}" >"$1"
}
