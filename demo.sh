#!/bin/sh
# The commands of `make demo`, each shown before it runs. Run again, it goes on from what exists.
set -eu

show() {
    printf '\n$ %s\n' "$1"
    eval "$1"
}

show "soup demo digits $1"
printf '\n$ cd %s\n' "$1"
cd "$1"
show "soup rank --ckpts runs/*/ --val val"
show "soup uniform --ckpts runs/*/ --val val --out uniform --force"
show "soup greedy --ckpts runs/*/ --val val --out soup --force"
show 'best=$(soup rank --ckpts runs/*/ --val val --quiet | head -1)'
show 'soup eval --ckpts "$best" uniform soup --val val test rotated blurred noisy'
printf '\nthe soup: %s\n' "$1/soup/model.safetensors"
