"""The completion scripts. Each asks the program, which answers as `complete` says.

The words before the cursor are passed as they are, the one at the cursor behind an equals sign,
since some versions of PowerShell drop empty arguments.
"""

from __future__ import annotations

_BASH = r"""
_vivace() {
    # Bash cuts words at '=' and ':' too; put them together again.
    local rest="$COMP_LINE" full=() i n=-1 piece
    for ((i = 0; i <= COMP_CWORD; i++)); do
        piece="${COMP_WORDS[i]}"
        if ((n >= 0)) && [[ "$rest" != [[:space:]]* ]]; then
            full[n]+="$piece"
        else
            rest="${rest#"${rest%%[![:space:]]*}"}"
            full[++n]="$piece"
        fi
        rest="${rest#"$piece"}"
    done
    local current="${full[n]}" cut="" line word file name
    if [[ "$current" != "$piece" || "$piece" == [=:] ]]; then
        cut="${current%"$piece"}"
        [[ "$piece" == [=:] ]] && cut="$current"
    fi
    COMPREPLY=()
    while IFS= read -r line; do
        case "$line" in
        :files* | :folders)
            compopt -o filenames 2>/dev/null
            name="${current#--*=}"
            while IFS= read -r file; do
                [[ -d "${file/#\~/$HOME}" ]] || _vivace_wanted "$file" "$line" || continue
                COMPREPLY+=("$file")
            done < <(compgen -f -- "$name")
            ;;
        *)
            word="${line%%$'\t'*}"
            COMPREPLY+=("${word#"$cut"}")
            ;;
        esac
    done < <(vivace __complete "${full[@]:1:n-1}" "=$current" 2>/dev/null)
}
_vivace_wanted() {
    [[ "$2" == :files ]] && return 0
    local suffix
    for suffix in ${2#:f*s}; do
        [[ "$1" == *"$suffix" ]] && return 0
    done
    return 1
}
complete -F _vivace vivace
"""

_ZSH = r"""
#compdef vivace
_vivace() {
    local line word
    local -a found suffixes
    while IFS= read -r line; do
        case "$line" in
        :folders)
            compset -P '--*='
            _files -/
            return
            ;;
        :files*)
            compset -P '--*='
            suffixes=(${=line#:files})
            if (( $#suffixes )); then
                _files -g "*(${(j:|:)suffixes})"
            else
                _files
            fi
            return
            ;;
        *$'\t'*)
            word="${line%%$'\t'*}"
            found+=("${word//:/\\:}:${line#*$'\t'}")
            ;;
        ?*)
            found+=("${line//:/\\:}")
            ;;
        esac
    done < <(vivace __complete "${(@Q)words[2,CURRENT-1]}" "=${(Q)PREFIX}" 2>/dev/null)
    _describe 'vivace' found
}
compdef _vivace vivace
"""

_FISH = r"""
function __vivace_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l option (string match -r -- '^--[^=]*=' $current)
    set -l name (string replace -r -- '^--[^=]*=' '' $current)
    for line in (vivace __complete $words[2..-1] "=$current" 2>/dev/null)
        switch $line
            case ':folders'
                for file in $name*/
                    echo $option$file
                end
            case ':files*'
                set -l suffixes (string split -n ' ' -- (string replace ':files' '' -- $line))
                for file in $name*
                    if test -d $file
                        echo $option$file/
                    else if test -z "$suffixes"
                        echo $option$file
                    else
                        for suffix in $suffixes
                            string match -q -- "*$suffix" $file; and echo $option$file
                        end
                    end
                end
            case '*'
                echo $line
        end
    end
end
complete -c vivace -e
complete -c vivace -f -a '(__vivace_complete)'
"""

# Without candidates, PowerShell offers names of files by itself.
_POWERSHELL = r"""
Register-ArgumentCompleter -Native -CommandName vivace -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $before = @($commandAst.CommandElements |
        Select-Object -Skip 1 |
        Where-Object { $_.Extent.EndOffset -lt $cursorPosition } |
        ForEach-Object { if ($null -ne $_.Value) { "$($_.Value)" } else { $_.Extent.Text } })
    vivace __complete @before "=$wordToComplete" 2>$null | ForEach-Object {
        if ($_ -and -not $_.StartsWith(':')) {
            $word, $meaning = $_ -split "`t", 2
            if (-not $meaning) { $meaning = $word }
            [System.Management.Automation.CompletionResult]::new(
                $word, $word, 'ParameterValue', $meaning)
        }
    }
}
"""

SCRIPTS = {
    "bash": _BASH.lstrip(),
    "zsh": _ZSH.lstrip(),
    "fish": _FISH.lstrip(),
    "powershell": _POWERSHELL.lstrip(),
}
