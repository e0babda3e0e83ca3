# bash completion for stackctl (bash 4.3 or later). `stackctl completion --help` says how to install it.
#
# Commands and flags come from the table below. What only files or the database know is asked of `stackctl _complete`.

# Sets what may follow the command $1: subcommands; flags, as NAME or, where they take a value, NAME=KIND; and the KIND
# of each argument, the last with ... if it repeats. The flags in $shared may follow every command.
# KIND: words joined by |, or @files, @directories, @text, or @ and what `stackctl _complete` lists.
_stackctl_follows() {
  subcommands= flags= arguments=
  # -- table: written by `python -m stackctl.cli.completion.scripts`
  shared='--config=@files --database-url= --json --jq= --quiet -q --no-color --wide --debug --help -h'
  case $1 in
    '') subcommands='demo init doctor config explain completion migrate mappings run serve sequence poll sync backfill verify enqueue queue status fuse tenancies db rules users refunds payments payment-methods help' flags='--version -V' ;;
    'demo') flags='--yes -y' arguments='@directories' ;;
    'init') flags='--force --dry-run' arguments='@files' ;;
    'doctor') ;;
    'config') subcommands='show' ;;
    'config show') ;;
    'explain') arguments='@codes' ;;
    'completion') arguments='bash|zsh|fish|powershell' ;;
    'migrate') subcommands='up status verify repair adopt new lint check diff dump squash' ;;
    'migrate up') flags='--to=@migrations --dry-run --lock-timeout= --statement-timeout= --lock-wait= --wait= --allow-out-of-order --schema-dump=@files --dir=@directories --history= --bundled' ;;
    'migrate status') flags='--check --dir=@directories --history= --bundled --output=name|csv -o=name|csv' ;;
    'migrate verify') flags='--dir=@directories --history=' ;;
    'migrate repair') flags='--applied=@migrations --pending=@migrations --dry-run --yes -y --dir=@directories --history=' arguments='@migrations...' ;;
    'migrate adopt') flags='--through=@migrations --dry-run --dir=@directories --history=' ;;
    'migrate new') flags='--revert=@migrations --trust --dir=@directories' arguments='@text' ;;
    'migrate lint') flags='--base= --ask-database --rule=@lint-rules --exclude=@lint-rules --server-version= --format=text|json|github|gitlab|junit|sarif' arguments='@files...' ;;
    'migrate check') flags='--base= --rows= --run= --run-env= --trust --format=text|json|github|gitlab|junit|sarif --dir=@directories' ;;
    'migrate diff') flags='--from=@directories --to=@directories --trust' ;;
    'migrate dump') flags='--output=@files -o=@files' ;;
    'migrate squash') flags='--to=@migrations --dry-run --yes -y --trust --dir=@directories' ;;
    'mappings') subcommands='list show check compile diff new export' ;;
    'mappings list') flags='--output=name|csv -o=name|csv' ;;
    'mappings show') arguments='@mappings' ;;
    'mappings check') flags='--offline' arguments='@files...' ;;
    'mappings compile') flags='--dialect=postgres|sqlite|duckdb|mysql|clickhouse' arguments='@mappings' ;;
    'mappings diff') flags='--tenancy=@synced-tenancies --database=@databases' ;;
    'mappings new') flags='--dir=@directories' arguments='@text' ;;
    'mappings export') flags='--to=@directories' arguments='@mappings...' ;;
    'run') flags='--max-duration=' ;;
    'serve') flags='--host= --port= --run --max-request=' ;;
    'sequence') flags='--loop --interval= --max-duration= --batch-size=' ;;
    'poll') flags='--loop --interval= --max-duration= --batch-size=' ;;
    'sync') flags='--tenancy=@synced-tenancies --all --database=@databases --mapping=@mappings --full --adopt --rebuild=@mappings --dry-run --yes -y' arguments='@synced-tenancies...' ;;
    'backfill') flags='--tenancy=@synced-tenancies --database=@databases --rate= --restart --dry-run' arguments='@mappings' ;;
    'verify') flags='--tenancy=@synced-tenancies --database=@databases --mapping=@mappings --repair --dry-run' arguments='@synced-tenancies...' ;;
    'enqueue') flags='--tenancy=@tenancies --all --dry-run' arguments='@tenancies...' ;;
    'queue') subcommands='list retry forget' ;;
    'queue list') flags='--tenancy=@tenancies --dead --limit= --output=name|csv -o=name|csv' ;;
    'queue retry') flags='--tenancy=@tenancies --all --dry-run' arguments='@failing...' ;;
    'queue forget') flags='--tenancy=@tenancies --all --yes -y --dry-run' arguments='@failing...' ;;
    'status') flags='--tenancy=@tenancies --watch --interval= --check --max-backlog= --max-lag=' ;;
    'fuse') subcommands='show on off' ;;
    'fuse show') ;;
    'fuse on') flags='--tenancy=@synced-tenancies --database=@databases --mapping=@mappings --dry-run' arguments='sequencer|poller' ;;
    'fuse off') flags='--tenancy=@synced-tenancies --database=@databases --mapping=@mappings --reason= --dry-run' arguments='sequencer|poller' ;;
    'tenancies') subcommands='list' ;;
    'tenancies list') flags='--limit= --output=name|csv -o=name|csv' ;;
    'db') subcommands='url psql' ;;
    'db url') flags='--show-password' ;;
    'db psql') arguments='@text...' ;;
    'rules') subcommands='list check eval pull push backtest add edit move enable disable remove stats test tree' ;;
    'rules list') flags='--rules=@files --output=name|csv -o=name|csv' ;;
    'rules check') flags='--rules=@files --format=text|json|github' ;;
    'rules eval') flags='--email= --auth-method=password|otp|oauth|passkey --oauth-provider= --country-code= --risk= --users=@files --user= --tenancy=@tenancies --rules=@files' ;;
    'rules pull') flags='--tenancy=@tenancies --rules=@files --yes -y --dry-run' ;;
    'rules push') flags='--tenancy=@tenancies --rules=@files --yes -y --dry-run' ;;
    'rules backtest') flags='--since= --tenancy=@tenancies --sample= --auth-method=password|otp|oauth|passkey --against=@files --csv=@files --show-emails --rules=@files' ;;
    'rules add') flags='--action=allow|reject|restrict|log --condition= --where= --or= --display-name= --message= --priority= --before=@rules --after=@rules --disabled --rules=@files --yes -y --dry-run' arguments='@text' ;;
    'rules edit') flags='--action=allow|reject|restrict|log --condition= --where= --or= --display-name= --message= --priority= --rules=@files --yes -y --dry-run' arguments='@rules' ;;
    'rules move') flags='--before=@rules --after=@rules --first --last --rules=@files --yes -y --dry-run' arguments='@rules' ;;
    'rules enable') flags='--rules=@files --yes -y --dry-run' arguments='@rules...' ;;
    'rules disable') flags='--rules=@files --yes -y --dry-run' arguments='@rules...' ;;
    'rules remove') flags='--rules=@files --yes -y --dry-run' arguments='@rules...' ;;
    'rules stats') flags='--hours= --tenancy=@tenancies' ;;
    'rules test') flags='--rules=@files --strict --junit=@files --record --dry-run --run= --coverage --watch' arguments='@files...' ;;
    'rules tree') flags='--from=@files --rules=@files' arguments='@rules' ;;
    'users') subcommands='show restrict unrestrict' ;;
    'users show') flags='--tenancy=@tenancies --show-private' arguments='@text' ;;
    'users restrict') flags='--reason= --private-details= --tenancy=@tenancies --yes -y --dry-run' arguments='@text' ;;
    'users unrestrict') flags='--tenancy=@tenancies --yes -y --dry-run' arguments='@text' ;;
    'refunds') subcommands='preview create list show resume' ;;
    'refunds preview') flags='--invoice= --latest --tenancy=@tenancies --stripe-api-key=' arguments='@purchases' ;;
    'refunds create') flags='--file=@files --full --amount= --quantity= --revoke= --entry= --end=now|period|no --reason=duplicate|fraudulent|requested_by_customer --note= --by= --invoice= --latest --request-id= --credit-note --release-schedule --again --report=@files --skip-refused --tenancy=@tenancies --stripe-api-key= --dry-run --yes -y' arguments='@purchases' ;;
    'refunds list') flags='--tenancy=@tenancies --customer= --purchase= --status=planned|submitted|pending|succeeded|failed|canceled --since= --until= --limit= --reconcile --strict --acknowledge= --why= --stripe-api-key= --output=name|csv -o=name|csv' ;;
    'refunds show') arguments='@refunds' ;;
    'refunds resume') flags='--all --give-up --tenancy=@tenancies --stripe-api-key= --yes -y --dry-run' arguments='@refunds' ;;
    'payments') subcommands='status test-mode products' ;;
    'payments status') flags='--tenancy=@tenancies --stripe-api-key=' ;;
    'payments test-mode') flags='--tenancy=@tenancies --yes -y --dry-run' arguments='on|off' ;;
    'payments products') flags='--customer-type=user|team|custom --customer= --tenancy=@tenancies --output=name|csv -o=name|csv' ;;
    'payment-methods') subcommands='list set plan apply export' ;;
    'payment-methods list') flags='--tenancy=@tenancies --configuration= --stripe-api-key= --output=name|csv -o=name|csv' ;;
    'payment-methods set') flags='--tenancy=@tenancies --configuration= --stripe-api-key= --yes -y --dry-run' arguments='@payment-methods...' ;;
    'payment-methods plan') flags='--tenancy=@tenancies --configuration= --stripe-api-key=' arguments='@files' ;;
    'payment-methods apply') flags='--tenancy=@tenancies --configuration= --stripe-api-key= --yes -y --dry-run' arguments='@files' ;;
    'payment-methods export') flags='--tenancy=@tenancies --configuration= --stripe-api-key=' ;;
  esac
  # -- end of the table
}

# Keeps in `told` what says where the values are, for `stackctl _complete`.
_stackctl_told() {
  case $1 in
    --config | --database-url | --rules | --dir) told+=("$1" "${2/#\~/"$HOME"}") ;;
  esac
}

_stackctl() {
  local IFS=$' \t\n'
  local line=${COMP_LINE:0:COMP_POINT} trimmed word lead i
  local -a words=()

  # Readline also cuts words at = and : while ours end at a blank. What it left out of the word under the cursor is
  # $lead, which must not be in the answers.
  for ((i = 0; i <= COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    trimmed=${line#"${line%%[![:space:]]*}"}
    if ((i == 0)) || [[ $trimmed != "$line" ]]; then words+=(''); fi
    [[ $trimmed == "$word"* ]] || word=$trimmed
    line=${trimmed#"$word"}
    lead=${words[-1]}
    words[-1]+=$word
    [[ $word != [=:]* ]] || lead=${words[-1]}
  done
  local current=${words[-1]}
  unset 'words[-1]'

  local where= awaiting= only_arguments= given=0
  local -a told=()
  local shared subcommands flags arguments
  _stackctl_follows ''
  for word in "${words[@]:1}"; do
    word=${word//[\\\"\']/}
    if [[ $awaiting ]]; then
      _stackctl_told "$awaiting" "$word"
      awaiting=
    elif [[ ! $only_arguments && $word == -- ]]; then
      only_arguments=yes
    elif [[ ! $only_arguments && $word == --*=* ]]; then
      _stackctl_told "${word%%=*}" "${word#*=}"
    elif [[ ! $only_arguments && $word == -* ]]; then
      [[ " $flags $shared " != *" $word="* ]] || awaiting=$word
    elif [[ ! $where && $word == help ]]; then
      : # what follows is named as if it were called
    elif [[ " $subcommands " == *" $word "* ]]; then
      where+=${where:+ }$word only_arguments=
      _stackctl_follows "$where"
    else
      ((given += 1))
    fi
  done

  local kind= prefix=
  local -a kinds=($arguments) offered=()
  if [[ ! $awaiting && ! $only_arguments && $current == --*=* ]]; then
    awaiting=${current%%=*} prefix=${current%%=*}= current=${current#*=}
  fi
  if [[ $awaiting ]]; then
    for word in $flags $shared; do
      [[ $word != "$awaiting="* ]] || kind=${word#*=}
    done
  elif [[ ! $only_arguments && $current == -* ]]; then
    for word in $flags $shared; do offered+=("${word%%=*}"); done
  elif [[ $subcommands ]]; then
    ((given > 0)) || offered=($subcommands)
  elif ((given < ${#kinds[@]})); then
    kind=${kinds[given]%...}
  elif [[ $arguments == *... ]]; then
    kind=${kinds[-1]%...}
  fi

  case $kind in
    @text) ;;
    @files) compopt -o default ;;
    @directories) compopt -o dirnames ;;
    @*)
      local program=${words[0]/#\~/"$HOME"}
      type -P "$program" >/dev/null || program=stackctl
      while IFS=$'\t' read -r word _; do
        offered+=("$word")
      done < <("$program" _complete "${kind#@}" "${told[@]}" 2>/dev/null)
      ;;
    *) IFS='|' read -r -a kinds <<<"$kind" && offered+=("${kinds[@]}") ;;
  esac

  # Readline replaces what follows a quote that is still open, and nobody but us quotes what it inserts.
  local quote= before=
  for ((i = 0; i < ${#current}; i++)); do
    case $quote${current:i:1} in
      \\ | \"\\) ((i += 1)) ;;
      \" | \') quote=${current:i:1} before=${current:0:i} ;;
      \"\" | \'\') quote= ;;
    esac
  done
  [[ ! $quote ]] || lead=$prefix${before//\\/}
  lead=${lead//[\"\']/}

  COMPREPLY=()
  for word in "${offered[@]}"; do
    [[ $word && $word == "${current//[\\\"\']/}"* ]] || continue
    if [[ ! $quote ]]; then
      printf -v word %q "$word"
    elif [[ $word == *[\"\'\`\$\\!]* ]]; then
      continue
    fi
    word=$prefix$word
    COMPREPLY+=("${word#"$lead"}")
  done
}

complete -F _stackctl stackctl
