# PowerShell completion for stackctl (PowerShell 7). `stackctl completion --help` says how to install it.
#
# Commands and flags come from the table below. What only files or the database know is asked of `stackctl _complete`.

Register-ArgumentCompleter -Native -CommandName stackctl -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)

    # What may follow each command, each entry with a colon and its description: subcommands; flags, as NAME or, where
    # they take a value, NAME=KIND; and the KIND of each argument, the last with ... if it repeats. The flags in $shared
    # may follow every command.
    # KIND: words joined by |, or @files, @directories, @text, or @ and what `stackctl _complete` lists.
    # -- table: written by `python -m stackctl.cli.completion.scripts`
    $shared = @(
        '--config=@files:Configuration file.'
        '--database-url=:The operated database.'
        '--json:Print one JSON document.'
        '--jq=:Filter the JSON document by an expression of jq.'
        '--quiet:No progress and no notes.'
        '-q:No progress and no notes.'
        '--no-color:No colours.'
        '--wide:Show all columns of tables, and fold nothing.'
        '--debug:Show tracebacks.'
        '--help:Show this message and exit.'
        '-h:Show this message and exit.'
    )
    $table = @{
        '' = @{
            subcommands = @(
                'demo:Play everything end to end on an embedded PostgreSQL.'
                'init:Write a commented stackctl.yaml.'
                'doctor:Check the configuration and every database; each finding names its fix.'
                'config:Show the effective configuration.'
                'explain:Explain an error by its code: what it means, why it happens, what to do.'
                'completion:Print the completion script of a shell.'
                'migrate:Apply, inspect and write migrations.'
                'mappings:List, check, compile and compare the SQL mappings.'
                'run:Sequencer, poller and engine in one process.'
                'serve:Sync on signed HTTP requests; health, status and metrics.'
                'sequence:Stamp changed rows and queue their tenancies.'
                'poll:Process the queue: sync the tenancies that are due.'
                'sync:Sync tenancies now, without the queue.'
                'backfill:Send every row of a mapping again, in batches.'
                'verify:Compare external databases with their source, and repair them.'
                'enqueue:Queue tenancies for the poller.'
                'queue:List the queue; retry or forget what failed.'
                'status:The pipeline at a glance: fuses, backlog, lag, queue, databases.'
                'fuse:Switch the sequencer or the poller off and on.'
                'tenancies:List the tenancies: ids, projects, external databases.'
                'db:Reach the operated database with other programs.'
                'rules:Test sign-up rules before they lock anyone out.'
                'users:Show, restrict and unrestrict users.'
                'refunds:Refund purchases and subscriptions through Stripe, never twice.'
                'payments:How a project is connected to Stripe; its test mode and products.'
                'payment-methods:Show and switch the payment methods that a checkout offers.'
                'help:Show the help of a command.'
            )
            flags = @(
                '--version:Print the version.'
                '-V:Print the version.'
            )
            arguments = @()
        }
        'demo' = @{
            subcommands = @()
            flags = @(
                '--yes:Start afresh without asking.'
                '-y:Start afresh without asking.'
            )
            arguments = @('@directories')
        }
        'init' = @{
            subcommands = @()
            flags = @(
                '--force:Overwrite a file that exists.'
                '--dry-run:Print the file, write nothing.'
            )
            arguments = @('@files')
        }
        'doctor' = @{
            subcommands = @()
            flags = @()
            arguments = @()
        }
        'config' = @{
            subcommands = @('show:Print every setting, where its value came from, and the configured databases; no secrets.')
            flags = @()
            arguments = @()
        }
        'config show' = @{
            subcommands = @()
            flags = @()
            arguments = @()
        }
        'explain' = @{
            subcommands = @()
            flags = @()
            arguments = @('@codes')
        }
        'completion' = @{
            subcommands = @()
            flags = @()
            arguments = @('bash|zsh|fish|powershell')
        }
        'migrate' = @{
            subcommands = @(
                'up:Apply pending migrations, each with its history row in one transaction.'
                'status:Compare the files with what is applied. Writes nothing.'
                'verify:Check that files, history and database belong together. Writes nothing.'
                'repair:Repair the history by hand; no migration is run.'
                'adopt:Record as applied what another tool has applied; no migration is run.'
                'new:Write an empty migration with its directives explained, or one that takes another back.'
                'lint:Find what is unsafe while the application runs, or breaks its previous version.'
                'check:Try whether the migrations that are new since a commit leave its version of the application working.'
                'diff:Print as SQL what makes one schema like another: a database, or what a folder of migrations makes.'
                'dump:Print the schema of the operated database as SQL, always in the same order: for reviews and diffs.'
                'squash:Make one file of the migrations up to a version: a dump of what they make, with the rows that they write.'
            )
            flags = @()
            arguments = @()
        }
        'migrate up' = @{
            subcommands = @()
            flags = @(
                '--to=@migrations:Stop after this version or name.'
                '--dry-run:Show the statements and what each will lock; apply nothing.'
                '--lock-timeout=:How long a statement may wait for a lock; 0s: no limit.'
                '--statement-timeout=:How long a statement may take; 0s: no limit.'
                '--lock-wait=:How long to wait for another run.'
                '--wait=:How long to wait for a server that is coming up.'
                '--allow-out-of-order:Apply files older than what is applied already.'
                '--schema-dump=@files:Write the schema as SQL to a file afterwards.'
                '--dir=@directories:Folder of migrations; default migrations_dir, else the bundled set.'
                '--history=:The folder''s own history; default migrations.history, else none.'
                '--bundled:Also stackctl''s own tables, after a folder of your own migrations.'
            )
            arguments = @()
        }
        'migrate status' = @{
            subcommands = @()
            flags = @(
                '--check:Exit 1 when anything is pending, edited or unknown.'
                '--dir=@directories:Folder of migrations; default migrations_dir, else the bundled set.'
                '--history=:The folder''s own history; default migrations.history, else none.'
                '--bundled:Also stackctl''s own tables, after a folder of your own migrations.'
                '--output=name|csv:The first column alone, one a line; or all columns as CSV.'
                '-o=name|csv:The first column alone, one a line; or all columns as CSV.'
            )
            arguments = @()
        }
        'migrate verify' = @{
            subcommands = @()
            flags = @(
                '--dir=@directories:Folder of migrations; default migrations_dir, else the bundled set.'
                '--history=:The folder''s own history; default migrations.history, else none.'
            )
            arguments = @()
        }
        'migrate repair' = @{
            subcommands = @()
            flags = @(
                '--applied=@migrations:Record this file as applied; run nothing.'
                '--pending=@migrations:Forget that this one was applied.'
                '--dry-run:Show what would be changed, and change nothing.'
                '--yes:Do not ask.'
                '-y:Do not ask.'
                '--dir=@directories:Folder of migrations; default migrations_dir, else the bundled set.'
                '--history=:The folder''s own history; default migrations.history, else none.'
            )
            arguments = @('@migrations...')
        }
        'migrate adopt' = @{
            subcommands = @()
            flags = @(
                '--through=@migrations:Without a history to read: the last file that is applied.'
                '--dry-run:Show what would be recorded, and write nothing.'
                '--dir=@directories:Folder of migrations; default migrations_dir, else the bundled set.'
                '--history=:The folder''s own history; default migrations.history, else none.'
            )
            arguments = @()
        }
        'migrate new' = @{
            subcommands = @()
            flags = @(
                '--revert=@migrations:Draft the reverse of this version or name.'
                '--trust:Run the files as superuser, who can read files and run programs.'
                '--dir=@directories:Folder of migrations; default migrations_dir, else the bundled set.'
            )
            arguments = @('@text')
        }
        'migrate lint' = @{
            subcommands = @()
            flags = @(
                '--base=:Only files new or changed since this git commit.'
                '--ask-database:Ask the operated database for sizes, checks, volatility and syntax.'
                '--rule=@lint-rules:Check only this rule; repeatable.'
                '--exclude=@lint-rules:Skip this rule; repeatable.'
                '--server-version=:Version of PostgreSQL; default the database''s, else the newest.'
                '--format=text|json|github|gitlab|junit|sarif:How to show findings.'
            )
            arguments = @('@files...')
        }
        'migrate check' = @{
            subcommands = @()
            flags = @(
                '--base=:The git commit that runs now.'
                '--rows=:Made-up rows in each table while statements are measured.'
                '--run=:Run against old and new schema: the old version''s tests.'
                '--run-env=:Variable that --run also inherits; repeatable.'
                '--trust:Run the files as superuser, who can read files and run programs.'
                '--format=text|json|github|gitlab|junit|sarif:How to show the result.'
                '--dir=@directories:Folder of migrations; default migrations_dir, else the bundled set.'
            )
            arguments = @()
        }
        'migrate diff' = @{
            subcommands = @()
            flags = @(
                '--from=@directories:A folder or a database URL; default the operated database.'
                '--to=@directories:What it should become; default the configured folder, or the database if --from is a folder.'
                '--trust:Run the files as superuser, who can read files and run programs.'
            )
            arguments = @()
        }
        'migrate dump' = @{
            subcommands = @()
            flags = @(
                '--output=@files:Write to this file.'
                '-o=@files:Write to this file.'
            )
            arguments = @()
        }
        'migrate squash' = @{
            subcommands = @()
            flags = @(
                '--to=@migrations:The last version or name; default the last file.'
                '--dry-run:Show the new file, and change nothing.'
                '--yes:Do not ask.'
                '-y:Do not ask.'
                '--trust:Run the files as superuser, who can read files and run programs.'
                '--dir=@directories:Folder of migrations; default migrations_dir, else the bundled set.'
            )
            arguments = @()
        }
        'mappings' = @{
            subcommands = @(
                'list:List the mappings: source, table, key, and what their rows depend on.'
                'show:Print a mapping''s file.'
                'check:Check mapping files, and against the operated database when one is named.'
                'compile:Print the statements made from a mapping: what runs on the source, and what in an external database.'
                'diff:Compare the mapping files with what the copies were made from, and say what a sync would do.'
                'new:Write a commented mapping file to begin with; it works as it is. Warns of others that have its name.'
                'export:Write the mapping files that come with stackctl into a folder, to be edited.'
            )
            flags = @()
            arguments = @()
        }
        'mappings list' = @{
            subcommands = @()
            flags = @(
                '--output=name|csv:The first column alone, one a line; or all columns as CSV.'
                '-o=name|csv:The first column alone, one a line; or all columns as CSV.'
            )
            arguments = @()
        }
        'mappings show' = @{
            subcommands = @()
            flags = @()
            arguments = @('@mappings')
        }
        'mappings check' = @{
            subcommands = @()
            flags = @('--offline:Do not ask the database, even if one is named.')
            arguments = @('@files...')
        }
        'mappings compile' = @{
            subcommands = @()
            flags = @('--dialect=postgres|sqlite|duckdb|mysql|clickhouse:The SQL dialect of the external database.')
            arguments = @('@mappings')
        }
        'mappings diff' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@synced-tenancies:Only this tenancy; repeatable.'
                '--database=@databases:Only this database; repeatable.'
            )
            arguments = @()
        }
        'mappings new' = @{
            subcommands = @()
            flags = @('--dir=@directories:Where; default the last of mappings_dir, or ./mappings.')
            arguments = @('@text')
        }
        'mappings export' = @{
            subcommands = @()
            flags = @('--to=@directories:The folder to write them into.')
            arguments = @('@mappings...')
        }
        'run' = @{
            subcommands = @()
            flags = @('--max-duration=:End after this time, e.g. 55s.')
            arguments = @()
        }
        'serve' = @{
            subcommands = @()
            flags = @(
                '--host=:Where to listen; serve.host, 127.0.0.1.'
                '--port=:Where to listen; serve.port, 8787. 0: any.'
                '--run:Also do what `stackctl run` does, in this process.'
                '--max-request=:Longest time that a request is answered in; 60s.'
            )
            arguments = @()
        }
        'sequence' = @{
            subcommands = @()
            flags = @(
                '--loop:Go on until a signal or --max-duration.'
                '--interval=:Pause between two passes.'
                '--max-duration=:End after this time, e.g. 55s.'
                '--batch-size=:Rows of a table in one transaction.'
            )
            arguments = @()
        }
        'poll' = @{
            subcommands = @()
            flags = @(
                '--loop:Go on until a signal or --max-duration.'
                '--interval=:Pause between two passes.'
                '--max-duration=:End after this time, e.g. 55s.'
                '--batch-size=:Queue entries taken at a time.'
            )
            arguments = @()
        }
        'sync' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@synced-tenancies:The same as an option; repeatable.'
                '--all:Every configured tenancy.'
                '--database=@databases:Only this database; repeatable.'
                '--mapping=@mappings:Only this mapping; repeatable.'
                '--full:Send every row again, and delete rows the source lacks.'
                '--adopt:Take over tables with other rows, and delete rows the source lacks.'
                '--rebuild=@mappings:Rebuild the table of this changed mapping.'
                '--dry-run:Say how many rows wait for each copy; send none.'
                '--yes:With --adopt and --rebuild: do not ask.'
                '-y:With --adopt and --rebuild: do not ask.'
            )
            arguments = @('@synced-tenancies...')
        }
        'backfill' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@synced-tenancies:Only this tenancy; repeatable.'
                '--database=@databases:Only this database; repeatable.'
                '--rate=:Rows a second at most.'
                '--restart:From the beginning, not where it was left.'
                '--dry-run:Say how many rows would go where.'
            )
            arguments = @('@mappings')
        }
        'verify' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@synced-tenancies:The same as an option; repeatable.'
                '--database=@databases:Only this database; repeatable.'
                '--mapping=@mappings:Only this mapping; repeatable.'
                '--repair:Repair the rows that differ, and no others.'
                '--dry-run:With --repair: only say what differs.'
            )
            arguments = @('@synced-tenancies...')
        }
        'enqueue' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:The same as an option; repeatable.'
                '--all:Every configured tenancy.'
                '--dry-run:Say which, and queue none.'
            )
            arguments = @('@tenancies...')
        }
        'queue' = @{
            subcommands = @(
                'list:List queue entries, and the databases that are waiting for another attempt or given up.'
                'retry:Make failing databases due now, given up ones included. The next poll tries them.'
                'forget:Forget that databases fail, as after a success: for those that are gone for good.'
            )
            flags = @()
            arguments = @()
        }
        'queue list' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:Only the databases of this tenancy.'
                '--dead:Only what was given up, by a delivery service too (sync.dispatch: qstash).'
                '--limit=:Entries to list, oldest first.'
                '--output=name|csv:The first column alone, one a line; or all columns as CSV.'
                '-o=name|csv:The first column alone, one a line; or all columns as CSV.'
            )
            arguments = @()
        }
        'queue retry' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:Only the databases of this tenancy.'
                '--all:Every failing database.'
                '--dry-run:Say which, and change nothing.'
            )
            arguments = @('@failing...')
        }
        'queue forget' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:Only the databases of this tenancy.'
                '--all:Every failing database.'
                '--yes:Do not ask.'
                '-y:Do not ask.'
                '--dry-run:Say which, and change nothing.'
            )
            arguments = @('@failing...')
        }
        'status' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:Only this tenancy.'
                '--watch:A board that is kept up to date until q or Ctrl-C; trouble comes first.'
                '--interval=:With --watch: time between two looks; 2s.'
                '--check:Exit 1 when something is wrong or a limit is passed.'
                '--max-backlog=:With --check: rows behind, per mapping.'
                '--max-lag=:With --check: time behind, per mapping.'
            )
            arguments = @()
        }
        'fuse' = @{
            subcommands = @(
                'show:Show whether each stage may work, and what is paused: by whom, since when and why.'
                'on:Let a stage work again, or end a pause, named as it was; what has changed meanwhile is sent at once.'
                'off:Stop a stage everywhere after its batch in hand, or pause a tenancy, a database, a mapping, or where they meet.'
            )
            flags = @()
            arguments = @()
        }
        'fuse show' = @{
            subcommands = @()
            flags = @()
            arguments = @()
        }
        'fuse on' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@synced-tenancies:Only what is sent of this tenancy.'
                '--database=@databases:Only what is sent to this database.'
                '--mapping=@mappings:Only the copies of this mapping.'
                '--dry-run:Check what is named, and change nothing.'
            )
            arguments = @('sequencer|poller')
        }
        'fuse off' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@synced-tenancies:Only what is sent of this tenancy.'
                '--database=@databases:Only what is sent to this database.'
                '--mapping=@mappings:Only the copies of this mapping.'
                '--reason=:The reason, for others to read.'
                '--dry-run:Check what is named, and change nothing.'
            )
            arguments = @('sequencer|poller')
        }
        'tenancies' = @{
            subcommands = @('list:List the tenancies of the operated database, by project and branch, with the external databases of each.')
            flags = @()
            arguments = @()
        }
        'tenancies list' = @{
            subcommands = @()
            flags = @(
                '--limit=:At most so many.'
                '--output=name|csv:The first column alone, one a line; or all columns as CSV.'
                '-o=name|csv:The first column alone, one a line; or all columns as CSV.'
            )
            arguments = @()
        }
        'db' = @{
            subcommands = @(
                'url:Print where the operated database is, as a URL for other programs.'
                'psql:Open psql on the operated database, also on an embedded server, which runs as long as psql does.'
            )
            flags = @()
            arguments = @()
        }
        'db url' = @{
            subcommands = @()
            flags = @('--show-password:Print the password in it, too.')
            arguments = @()
        }
        'db psql' = @{
            subcommands = @()
            flags = @()
            arguments = @('@text...')
        }
        'rules' = @{
            subcommands = @(
                'list:List the rules in the order in which they are evaluated.'
                'check:Find what is wrong with rules before anybody signs up: mistakes, and comparisons that never come true.'
                'eval:Show what the rules decide about a sample user, and why; or about every user of a file, or a user that is there.'
                'pull:Write the rules that the backend enforces into the file; comments and layout of what is alike stay.'
                'push:Make the file''s rules those that the backend enforces for a tenancy; nothing else of its configuration changes.'
                'backtest:Show what the rules would have done to the users who are in the database. Nothing is written.'
                'add:Add a rule to the file: below all others, unless --priority, --before or --after says where.'
                'edit:Change what a rule says; --message '''' takes the note away.'
                'move:Put a rule elsewhere in the order of evaluation; as few priorities change as possible.'
                'enable:Enable rules.'
                'disable:Disable rules; they stay in the file.'
                'remove:Take rules out of the file; comments stay.'
                'stats:How often each rule has acted: the last hours one by one, by action, and all time.'
                'test:Run suites of sample users against the rules, and show what came out otherwise, and why.'
                'tree:Draw a rule''s condition as groups and conditions, or make a condition of such a tree.'
            )
            flags = @()
            arguments = @()
        }
        'rules list' = @{
            subcommands = @()
            flags = @(
                '--rules=@files:The rules file; default sign_up_rules of stackctl.yaml.'
                '--output=name|csv:The first column alone, one a line; or all columns as CSV.'
                '-o=name|csv:The first column alone, one a line; or all columns as CSV.'
            )
            arguments = @()
        }
        'rules check' = @{
            subcommands = @()
            flags = @(
                '--rules=@files:The rules file; default sign_up_rules of stackctl.yaml.'
                '--format=text|json|github:How to show the findings.'
            )
            arguments = @()
        }
        'rules eval' = @{
            subcommands = @()
            flags = @(
                '--email=:Leave it out for a user without one.'
                '--auth-method=password|otp|oauth|passkey:password (the default), otp, oauth or passkey.'
                '--oauth-provider=:With --auth-method oauth.'
                '--country-code=:Two letters.'
                '--risk=:bot or free_trial_abuse; repeatable.'
                '--users=@files:Many sample users: .csv, .tsv, .jsonl or .yaml.'
                '--user=:A user of the database, as it was at its sign-up.'
                '--tenancy=@tenancies:With --user: where several have the user.'
                '--rules=@files:The rules file; default sign_up_rules of stackctl.yaml.'
            )
            arguments = @()
        }
        'rules pull' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:The tenancy; not needed if there is only one.'
                '--rules=@files:The rules file; default sign_up_rules of stackctl.yaml.'
                '--yes:Do not ask.'
                '-y:Do not ask.'
                '--dry-run:Show the difference only.'
            )
            arguments = @()
        }
        'rules push' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:The tenancy; not needed if there is only one.'
                '--rules=@files:The rules file; default sign_up_rules of stackctl.yaml.'
                '--yes:Do not ask.'
                '-y:Do not ask.'
                '--dry-run:Show the difference only.'
            )
            arguments = @()
        }
        'rules backtest' = @{
            subcommands = @()
            flags = @(
                '--since=:Signed up since; a time, or e.g. 30d.'
                '--tenancy=@tenancies:Only its users.'
                '--sample=:At most so many users, the same ones each time.'
                '--auth-method=password|otp|oauth|passkey:Of users whose method the database does not record.'
                '--against=@files:Other rules: show who would be treated differently.'
                '--csv=@files:Write who would be rejected or restricted, a row each.'
                '--show-emails:Show addresses in full.'
                '--rules=@files:The rules file; default sign_up_rules of stackctl.yaml.'
            )
            arguments = @()
        }
        'rules add' = @{
            subcommands = @()
            flags = @(
                '--action=allow|reject|restrict|log:What it does.'
                '--condition=:When it matches.'
                '--where=:A condition; several are joined by &&.'
                '--or=:An alternative to all of --where; repeatable.'
                '--display-name=:Its name for people.'
                '--message=:A note for operators.'
                '--priority=:Higher is evaluated earlier.'
                '--before=@rules:Evaluated right before this rule.'
                '--after=@rules:Evaluated right after this rule.'
                '--disabled:Not yet enabled.'
                '--rules=@files:The rules file; default sign_up_rules of stackctl.yaml.'
                '--yes:Write it even if tests fail.'
                '-y:Write it even if tests fail.'
                '--dry-run:Show the change only.'
            )
            arguments = @('@text')
        }
        'rules edit' = @{
            subcommands = @()
            flags = @(
                '--action=allow|reject|restrict|log:What it does.'
                '--condition=:When it matches.'
                '--where=:A condition; several are joined by &&.'
                '--or=:An alternative to all of --where; repeatable.'
                '--display-name=:Its name for people.'
                '--message=:A note for operators.'
                '--priority=:Higher is evaluated earlier.'
                '--rules=@files:The rules file; default sign_up_rules of stackctl.yaml.'
                '--yes:Write it even if tests fail.'
                '-y:Write it even if tests fail.'
                '--dry-run:Show the change only.'
            )
            arguments = @('@rules')
        }
        'rules move' = @{
            subcommands = @()
            flags = @(
                '--before=@rules:Evaluated right before this rule.'
                '--after=@rules:Evaluated right after this rule.'
                '--first:Evaluated before all others.'
                '--last:Evaluated after all others.'
                '--rules=@files:The rules file; default sign_up_rules of stackctl.yaml.'
                '--yes:Write it even if tests fail.'
                '-y:Write it even if tests fail.'
                '--dry-run:Show the change only.'
            )
            arguments = @('@rules')
        }
        'rules enable' = @{
            subcommands = @()
            flags = @(
                '--rules=@files:The rules file; default sign_up_rules of stackctl.yaml.'
                '--yes:Write it even if tests fail.'
                '-y:Write it even if tests fail.'
                '--dry-run:Show the change only.'
            )
            arguments = @('@rules...')
        }
        'rules disable' = @{
            subcommands = @()
            flags = @(
                '--rules=@files:The rules file; default sign_up_rules of stackctl.yaml.'
                '--yes:Write it even if tests fail.'
                '-y:Write it even if tests fail.'
                '--dry-run:Show the change only.'
            )
            arguments = @('@rules...')
        }
        'rules remove' = @{
            subcommands = @()
            flags = @(
                '--rules=@files:The rules file; default sign_up_rules of stackctl.yaml.'
                '--yes:Write it even if tests fail.'
                '-y:Write it even if tests fail.'
                '--dry-run:Show the change only.'
            )
            arguments = @('@rules...')
        }
        'rules stats' = @{
            subcommands = @()
            flags = @(
                '--hours=:How far to look back.'
                '--tenancy=@tenancies:Only this tenancy.'
            )
            arguments = @()
        }
        'rules test' = @{
            subcommands = @()
            flags = @(
                '--rules=@files:The rules file; default sign_up_rules of stackctl.yaml.'
                '--strict:Fail, too, on rules that are errors or that no test matches.'
                '--junit=@files:Write a JUnit report.'
                '--record:Write what happens today into the suites as what is expected.'
                '--dry-run:With --record: show the change only.'
                '--run=:Only tests whose names hold a match of it.'
                '--coverage:Show the comparisons that no test found true, or none false.'
                '--watch:Run again when suites, rules or lists change, until Ctrl-C.'
            )
            arguments = @('@files...')
        }
        'rules tree' = @{
            subcommands = @()
            flags = @(
                '--from=@files:A tree as JSON; print it as CEL.'
                '--rules=@files:The rules file; default sign_up_rules of stackctl.yaml.'
            )
            arguments = @('@rules')
        }
        'users' = @{
            subcommands = @(
                'show:Show who a user is, how it signed up, whether it is restricted and why, and whether the sync knows.'
                'restrict:Restrict a user, or change the reason of one that is restricted.'
                'unrestrict:Lift the restriction on a user, whether set by an admin or a sign-up rule, with its reason and details.'
            )
            flags = @()
            arguments = @()
        }
        'users show' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:Only this one, where several have the user.'
                '--show-private:With the private details of a restriction.'
            )
            arguments = @('@text')
        }
        'users restrict' = @{
            subcommands = @()
            flags = @(
                '--reason=:Why; the user may see it.'
                '--private-details=:For admins only; '''' takes away those there are.'
                '--tenancy=@tenancies:Only this one, where several have the user.'
                '--yes:Do not ask.'
                '-y:Do not ask.'
                '--dry-run:Say what would change, and change nothing.'
            )
            arguments = @('@text')
        }
        'users unrestrict' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:Only this one, where several have the user.'
                '--yes:Do not ask.'
                '-y:Do not ask.'
                '--dry-run:Say what would change, and change nothing.'
            )
            arguments = @('@text')
        }
        'refunds' = @{
            subcommands = @(
                'preview:Show what was bought, charged and refunded, what remains, and why it can''t be refunded when it can''t.'
                'create:Refund a purchase or a subscription''s payment, in full or in part.'
                'list:List the refunds of the ledger, the newest first; with --reconcile, compare the ledger with Stripe.'
                'show:Show one refund as the ledger has it. Stripe is not asked; `resume` does that.'
                'resume:Find out what became of refunds whose outcome is not known, and finish them. Safe to run from cron.'
            )
            flags = @()
            arguments = @()
        }
        'refunds preview' = @{
            subcommands = @()
            flags = @(
                '--invoice=:Of a subscription: refund this invoice, not the first one.'
                '--latest:Of a subscription: the last payment that was made, not the first one.'
                '--tenancy=@tenancies:Only needed if several tenancies have this id.'
                '--stripe-api-key=:The platform''s key; better set as STRIPE_API_KEY.'
            )
            arguments = @('@purchases')
        }
        'refunds create' = @{
            subcommands = @()
            flags = @(
                '--file=@files:A CSV file of refunds, a row each; - reads stdin.'
                '--full:Refund all that remains, and revoke everything.'
                '--amount=:E.g. 19.99, in the currency that was paid in; or 50% of what was paid.'
                '--quantity=:How many are revoked; else all with --full, or none.'
                '--revoke=:How many are revoked; else all with --full, or none.'
                '--entry=:Of one entry of the preview.'
                '--end=now|period|no:Of a subscription: end it now, with its period, or not, whatever is refunded.'
                '--reason=duplicate|fraudulent|requested_by_customer:Why, as Stripe is told.'
                '--note=:Kept in the ledger.'
                '--by=:Who refunds it; else your name on this machine.'
                '--invoice=:Of a subscription: refund this invoice, not the first one.'
                '--latest:Of a subscription: the last payment that was made, not the first one.'
                '--request-id=:An id of your own: repeated with it, the command refunds once.'
                '--credit-note:Of a subscription''s invoice: refund with a credit note of it.'
                '--release-schedule:End the schedule that manages the subscription, before the money.'
                '--again:Even if the same was refunded moments ago.'
                '--report=@files:With --file: what became of each row, as .csv or .json.'
                '--skip-refused:With --file: refund the others, where rows can''t be.'
                '--tenancy=@tenancies:Only needed if several tenancies have this id.'
                '--stripe-api-key=:The platform''s key; better set as STRIPE_API_KEY.'
                '--dry-run:Show the exact request, and send nothing.'
                '--yes:Do not ask.'
                '-y:Do not ask.'
            )
            arguments = @('@purchases')
        }
        'refunds list' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:Only this tenancy''s.'
                '--customer=:Only this customer''s; a user by address, too.'
                '--purchase=:Only this purchase''s, named as for `refunds create`.'
                '--status=planned|submitted|pending|succeeded|failed|canceled:Only of this status.'
                '--since=:Only refunds created since a time, or e.g. 24h ago.'
                '--until=:Only refunds created before a time, or e.g. 1h ago.'
                '--limit=:How many to list, the newest first.'
                '--reconcile:Name every difference from Stripe.'
                '--strict:With --reconcile: refunds that were made elsewhere are differences, too.'
                '--acknowledge=:With --reconcile: the difference of this refund is in order.'
                '--why=:With --acknowledge: why it is.'
                '--stripe-api-key=:The platform''s key; better set as STRIPE_API_KEY.'
                '--output=name|csv:The first column alone, one a line; or all columns as CSV.'
                '-o=name|csv:The first column alone, one a line; or all columns as CSV.'
            )
            arguments = @()
        }
        'refunds show' = @{
            subcommands = @()
            flags = @()
            arguments = @('@refunds')
        }
        'refunds resume' = @{
            subcommands = @()
            flags = @(
                '--all:Every refund that is not settled.'
                '--give-up:Give up what can''t be finished: too old to be sent, not to be asked, not to be lowered.'
                '--tenancy=@tenancies:Only this tenancy''s.'
                '--stripe-api-key=:The platform''s key; better set as STRIPE_API_KEY.'
                '--yes:With --give-up: do not ask.'
                '-y:With --give-up: do not ask.'
                '--dry-run:Say which refunds, and neither ask nor send.'
            )
            arguments = @('@refunds')
        }
        'payments' = @{
            subcommands = @(
                'status:Show the connected account, what Stripe still waits for, and whether key and project are of one mode.'
                'test-mode:Show or switch a tenancy''s test mode, in which purchases cost nothing. Only its own key is written.'
                'products:List the products that a tenancy sells; of a customer, what it owns and may buy. Stripe is not asked.'
            )
            flags = @()
            arguments = @()
        }
        'payments status' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:The tenancy; not needed if there is only one.'
                '--stripe-api-key=:The platform''s key; better set as STRIPE_API_KEY.'
            )
            arguments = @()
        }
        'payments test-mode' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:The tenancy; not needed if there is only one.'
                '--yes:Do not ask.'
                '-y:Do not ask.'
                '--dry-run:Say what would change, and change nothing.'
            )
            arguments = @('on|off')
        }
        'payments products' = @{
            subcommands = @()
            flags = @(
                '--customer-type=user|team|custom:For users, for teams, or for your own ids.'
                '--customer=:What it owns and may buy; a user may be named by address.'
                '--tenancy=@tenancies:The tenancy; not needed if there is only one.'
                '--output=name|csv:The first column alone, one a line; or all columns as CSV.'
                '-o=name|csv:The first column alone, one a line; or all columns as CSV.'
            )
            arguments = @()
        }
        'payment-methods' = @{
            subcommands = @(
                'list:List the methods by category: whether checkout shows them, and whether they can be switched.'
                'set:Switch payment methods on or off; shows the difference first.'
                'plan:Show what `apply` would change, and what stands in the way.'
                'apply:Switch payment methods to the state that a file gives; shows the difference first.'
                'export:Print the present state as a file for `plan` and `apply`.'
            )
            flags = @()
            arguments = @()
        }
        'payment-methods list' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:The tenancy; not needed if there is only one.'
                '--configuration=:Which configuration, where Stripe has several: pmc_…'
                '--stripe-api-key=:The platform''s key; better set as STRIPE_API_KEY.'
                '--output=name|csv:The first column alone, one a line; or all columns as CSV.'
                '-o=name|csv:The first column alone, one a line; or all columns as CSV.'
            )
            arguments = @()
        }
        'payment-methods set' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:The tenancy; not needed if there is only one.'
                '--configuration=:Which configuration, where Stripe has several: pmc_…'
                '--stripe-api-key=:The platform''s key; better set as STRIPE_API_KEY.'
                '--yes:Do not ask.'
                '-y:Do not ask.'
                '--dry-run:Show the change only.'
            )
            arguments = @('@payment-methods...')
        }
        'payment-methods plan' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:The tenancy; not needed if there is only one.'
                '--configuration=:Which configuration, where Stripe has several: pmc_…'
                '--stripe-api-key=:The platform''s key; better set as STRIPE_API_KEY.'
            )
            arguments = @('@files')
        }
        'payment-methods apply' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:The tenancy; not needed if there is only one.'
                '--configuration=:Which configuration, where Stripe has several: pmc_…'
                '--stripe-api-key=:The platform''s key; better set as STRIPE_API_KEY.'
                '--yes:Do not ask.'
                '-y:Do not ask.'
                '--dry-run:Show the change only.'
            )
            arguments = @('@files')
        }
        'payment-methods export' = @{
            subcommands = @()
            flags = @(
                '--tenancy=@tenancies:The tenancy; not needed if there is only one.'
                '--configuration=:Which configuration, where Stripe has several: pmc_…'
                '--stripe-api-key=:The platform''s key; better set as STRIPE_API_KEY.'
            )
            arguments = @()
        }
    }
    # -- end of the table

    $words = @(
        foreach ($element in $commandAst.CommandElements) {
            if ($element.Extent.EndOffset -ge $cursorPosition) { break }
            if ($element -is [System.Management.Automation.Language.StringConstantExpressionAst]) { $element.Value }
            else { $element.Extent.Text.Trim('"') }
        }
    )
    $current = $wordToComplete.Trim('''"')

    $where = ''
    $awaiting = ''
    # What says where the values are is handed on to `stackctl _complete`.
    $telling = @('--config', '--database-url', '--rules', '--dir')
    $told = @()
    $onlyArguments = $false
    $given = 0
    for ($i = 1; $i -lt $words.Count; $i++) {
        $word = $words[$i]
        $flags = $table[$where].flags + $shared
        if ($awaiting) {
            if ($telling -ccontains $awaiting) { $told += @($awaiting, $word) }
            $awaiting = ''
        }
        elseif (-not $onlyArguments -and $word -ceq '--') { $onlyArguments = $true }
        elseif (-not $onlyArguments -and $word -cmatch '^(--[^=]+)=(.*)$') {
            if ($telling -ccontains $Matches[1]) { $told += @($Matches[1], $Matches[2]) }
        }
        elseif (-not $onlyArguments -and $word.StartsWith('-')) {
            if ($flags | Where-Object { $_.StartsWith("$word=") }) { $awaiting = $word }
        }
        elseif (-not $where -and $word -ceq 'help') { } # what follows is named as if it were called
        elseif ($table[$where].subcommands | Where-Object { $_.StartsWith("${word}:") }) {
            $where = "$where $word".Trim()
            $onlyArguments = $false
        }
        else { $given++ }
    }
    $follows = $table[$where]
    $flags = $follows.flags + $shared

    $prefix = ''
    $kind = ''
    $offered = @()
    if (-not $awaiting -and -not $onlyArguments -and $current -match '^(--[^=]+)=(.*)$') {
        $awaiting = $Matches[1]
        $prefix = "$awaiting="
        $current = $Matches[2]
    }
    if ($awaiting) {
        $entry = $flags | Where-Object { $_.StartsWith("$awaiting=") } | Select-Object -First 1
        if ($entry) { $kind = $entry.Split(':')[0].Substring($awaiting.Length + 1) }
    }
    elseif (-not $onlyArguments -and $current.StartsWith('-')) {
        $offered = @($flags -replace '^([^=:]*)[^:]*:', "`$1`t")
    }
    elseif ($follows.subcommands) {
        if ($given -eq 0) { $offered = @($follows.subcommands -replace '^([^:]*):', "`$1`t") }
    }
    elseif ($given -lt $follows.arguments.Count) { $kind = $follows.arguments[$given] -replace '\.\.\.$' }
    elseif ($follows.arguments -and $follows.arguments[-1].EndsWith('...')) {
        $kind = $follows.arguments[-1] -replace '\.\.\.$'
    }

    if ($kind -eq '@files' -or $kind -eq '@directories') {
        # PowerShell completes paths by itself, except behind a `=`.
        if (-not $prefix) { return }
        return [System.Management.Automation.CompletionCompleters]::CompleteFilename($current) | ForEach-Object {
            [System.Management.Automation.CompletionResult]::new(
                $prefix + $_.CompletionText, $_.ListItemText, 'ParameterValue', $_.ToolTip)
        }
    }
    elseif ($kind.StartsWith('@') -and $kind -ne '@text') {
        $program = if (Get-Command $words[0] -ErrorAction Ignore) { $words[0] } else { 'stackctl' }
        $request = @('_complete', $kind.Substring(1)) + $told
        $offered = @(& $program @request 2>$null)
    }
    elseif ($kind -and $kind -ne '@text') { $offered = $kind.Split('|') }

    foreach ($line in $offered) {
        $value, $help = $line -split "`t", 2
        if (-not $value.StartsWith($current)) { continue }
        if (-not $help) { $help = $value }
        $text = $prefix + $value
        if ($text -match '[^\w.:/=-]') {
            # It doubles the curly quotes too, which end a text as well.
            $text = "'" + [System.Management.Automation.Language.CodeGeneration]::EscapeSingleQuotedStringContent($text) + "'"
        }
        [System.Management.Automation.CompletionResult]::new($text, $value, 'ParameterValue', $help)
    }
}
