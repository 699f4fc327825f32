# Runs every example in the lab and compares it with its expected matrix. To be sourced after lib.sh.
# shellcheck shell=bash

# lab_examples RUNNER…: what the kernel shows for every example is its expected matrix.
lab_examples() {
    local folder name bad=0
    for folder in examples/*/; do
        name=$(basename "$folder")
        if "$@" "$bin" lab run "$scratch/examples/$name" >"$scratch/$name.out" 2>"$scratch/$name.err" \
            && diff -u "$folder/expected.txt" "$scratch/$name.out"; then
            echo "$name: as expected"
        else
            echo "$name: not as expected"
            cat "$scratch/$name.err"
            bad=1
        fi
    done
    return "$bad"
}
