-- needs: base, recounting, batch
-- Stores new jobs that have only the fields that every job has; enqueue_each stores all others. The script is short,
-- because one job costs little more than the start of a script.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { { group, ... }, { job, ... } }
--   group: { status, queue, path, rank, whether its jobs have search keys }, shared by many jobs
--   job: { id, index of its group, data, due or false, queued at, delay in ms or false, { search key, value, ... } }
--     search key: the name of its term, see terms; missing in a group without search keys
-- Answers for each: 1 stored, 0 a job with this id exists, and may have expired.

-- Gathers the jobs of a group: their number, their entries by due time, and their members of the indexes, which are the
-- same in each index.
local function prepared(group)
  note_rank(group[4])
  return {
    status = group[1], queue = group[2], path = group[3], has_more = group[4] ~= '0' or group[5], rank = group[4],
    line = waiting_line(group[2], group[4]), number = 0, entries = {}, members = {},
  }
end

local groups, answers = {}, {}
local now_text = digits(now)

local function write_groups()
  for _, group in pairs(groups) do
    in_parts('ZADD', group.line, group.entries)
    in_parts('ZADD', status_index(group.status), group.members)
    in_parts('ZADD', index_of('q', group.queue), group.members)
    in_parts('ZADD', index_of('h', group.path), group.members)
    add_later(K .. 'queues', 0, group.queue)
    count_later(group.queue, group.path, group.status, group.number)
    touch(group.queue)
  end
end

-- The fields of a job that other jobs do not have; gathers the terms of its search keys.
local function further_fields(id, rank, keys)
  local fields = {}
  if rank ~= '0' then
    fields[1], fields[2] = 'k', rank
  end
  if keys then
    fields[#fields + 1] = 'f'
    fields[#fields + 1] = 'k'
    for index = 1, #keys, 2 do
      fields[#fields + 1] = keys[index]
      fields[#fields + 1] = keys[index + 1]
      add_later(index_of('t', keys[index]), '0', keys[index + 1] .. '\0' .. id)
    end
  end
  return unpack(fields)
end

local function store(job)
  local id, due, delay = job[1], job[4], job[6]
  if call('SETNX', data_of(id), job[3]) == 0 then
    return 0
  end
  local group = groups[job[2]]
  if not group then
    group = prepared(given[1][job[2]])
    groups[job[2]] = group
  end
  due = delay and digits(now + delay) or due or now_text
  if group.has_more then
    call('HSET', key_of(id), 's', group.status, 'q', group.queue, 'h', group.path, 'd', due, 'Q', job[5],
      further_fields(id, group.rank, job[7]))
  else
    call('HSET', key_of(id), 's', group.status, 'q', group.queue, 'h', group.path, 'd', due, 'Q', job[5])
  end
  local number, entries, members = group.number + 1, group.entries, group.members
  entries[2 * number - 1], entries[2 * number] = due, id
  members[2 * number - 1], members[2 * number] = '0', id
  group.number = number
  if number <= WAKE_MOST then
    wake(group.queue, due)
  end
  return 1
end

for index, job in ipairs(given[2]) do
  answers[index] = store(job)
end
write_groups()
flush()
return answers
